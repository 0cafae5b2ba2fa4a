"""Token folders: what was written comes back, and whatever is torn is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dalle.captions import CaptionTokenizer
from dalle.data.tokens import (
    CAPTIONS_FILE,
    META_FILE,
    OFFSETS_FILE,
    SAME_PICTURE_FILE,
    TOKENS_FILE,
    TokenFolder,
    TokenWriter,
)
from dalle.errors import DataError
from dalle.prompts import normalise
from vae import DiscreteVAE, VaeConfig

CAPTIONS = ["a fox", "", "two foxes 🦊🦊", "ein füchslein", "a\u2028b"]


def tiny_vae(codebook_size: int = 16) -> DiscreteVAE:
    config = VaeConfig(
        channels=8, groups=2, blocks_per_group=1, codebook_size=codebook_size, codebook_dim=4
    )
    return DiscreteVAE(config)


def random_grids(count: int, crops: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return list(rng.integers(16, size=(count, crops, 2, 3)))


def write(folder: Path, captions: list[str], *, crops: int = 1) -> list[np.ndarray]:
    grids = random_grids(len(captions), crops)
    with TokenWriter(folder, tiny_vae(), crops=crops, source="pictures") as writer:
        for caption, versions in zip(captions, grids, strict=True):
            writer.add(caption, versions)
        writer.finish(CaptionTokenizer.train(captions, 257), skipped=3)
    return grids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "tokens", CAPTIONS)
    return tmp_path / "tokens"


# ------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("crops", [1, 3])
def test_grids_and_captions_come_back(tmp_path: Path, crops: int) -> None:
    grids = write(tmp_path / "tokens", CAPTIONS, crops=crops)
    found = TokenFolder(tmp_path / "tokens")
    assert len(found) == 5
    assert list(found.captions()) == CAPTIONS
    for index in (4, 0, 2):
        for crop in range(crops):
            grid = found.grid(index, crop)
            assert grid.dtype == np.int64
            assert np.array_equal(grid, grids[index][crop])
    meta = found.meta
    assert (meta.crops, meta.grid_h, meta.grid_w, meta.codebook_size) == (crops, 2, 3, 16)
    assert (meta.source, meta.skipped) == ("pictures", 3)


@settings(max_examples=30)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_unicode_comes_back(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    captions = [normalise(text) for text in texts]
    path = tmp_path_factory.mktemp("unicode") / "tokens"
    write(path, captions)
    assert list(TokenFolder(path).captions()) == captions


def test_tokenizer_and_dvae_come_along(tmp_path: Path) -> None:
    vae = tiny_vae()
    with TokenWriter(tmp_path / "tokens", vae, crops=1, source="s") as writer:
        writer.add("a fox", random_grids(1, 1)[0])
        writer.finish(CaptionTokenizer.train(["a fox"], 258), skipped=0)
    found = TokenFolder(tmp_path / "tokens")
    assert found.tokenizer().encode("a fox") == CaptionTokenizer.train(["a fox"], 258).encode(
        "a fox"
    )
    for name, tensor in found.vae().state_dict().items():
        assert torch.equal(tensor, vae.state_dict()[name])


def test_the_largest_token_of_sixteen_bits_comes_back(tmp_path: Path) -> None:
    with TokenWriter(tmp_path / "tokens", tiny_vae(1 << 16), crops=1, source="s") as writer:
        writer.add("a", np.array([[[0, 65535]]]))
        writer.finish(CaptionTokenizer.train(["a"], 257), skipped=0)
    assert TokenFolder(tmp_path / "tokens").grid(0, 0).tolist() == [[0, 65535]]


def test_the_fingerprint_tells_vaes_and_tokenizers_apart(tmp_path: Path) -> None:
    def written(name: str, seed: int, vocab_size: int) -> str:
        torch.manual_seed(seed)
        with TokenWriter(tmp_path / name, tiny_vae(), crops=1, source="s") as writer:
            writer.add("a fox", random_grids(1, 1)[0])
            writer.finish(CaptionTokenizer.train(["a fox", "a fox"], vocab_size), skipped=0)
        return TokenFolder(tmp_path / name).fingerprint

    first = written("1", seed=0, vocab_size=257)
    assert json.loads((tmp_path / "1" / META_FILE).read_text())["tokens_sha256"]
    assert first == written("2", seed=0, vocab_size=257)
    assert first != written("3", seed=1, vocab_size=257)
    assert first != written("4", seed=0, vocab_size=258)


def test_the_fingerprint_follows_tokens_and_captions(tmp_path: Path) -> None:
    """Bug: crops of another seed were other tokens of the same fingerprint."""

    def written(name: str, caption: str, token: int) -> str:
        torch.manual_seed(0)
        with TokenWriter(tmp_path / name, tiny_vae(), crops=1, source="s") as writer:
            writer.add(caption, np.array([[[token, 2]]]))
            writer.finish(CaptionTokenizer.train(["a"], 257), skipped=0)
        return TokenFolder(tmp_path / name).fingerprint

    first = written("1", "a fox", 1)
    assert first == written("2", "a fox", 1)
    assert first != written("3", "a fox", 3)
    assert first != written("4", "a dog", 1)


def test_a_folder_from_before_its_hashes_were_kept_opens(folder: Path) -> None:
    meta = json.loads((folder / META_FILE).read_text())
    older = {name: value for name, value in meta.items() if not name.endswith("_sha256")}
    assert len(older) == len(meta) - 2
    (folder / META_FILE).write_text(json.dumps(older))
    assert TokenFolder(folder).meta.tokens_sha256 is None


# ------------------------------------------------------------------------------- writing goes wrong


def test_an_existing_folder_is_never_overwritten(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"tokens exists; give a new one or remove it"):
        TokenWriter(folder, tiny_vae(), crops=1, source="s")
    assert len(TokenFolder(folder)) == 5


def test_codes_that_do_not_fit_are_refused_before_work_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="codebook_size 65537 does not fit 16-bit tokens"):
        TokenWriter(tmp_path / "tokens", tiny_vae((1 << 16) + 1), crops=1, source="s")


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with TokenWriter(tmp_path / "tokens", tiny_vae(), crops=1, source="s") as writer:
            writer.add("a", random_grids(1, 1)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_pictures_is_not_written(tmp_path: Path) -> None:
    tokenizer = CaptionTokenizer.train(["a"], 257)
    with (
        TokenWriter(tmp_path / "tokens", tiny_vae(), crops=1, source="s") as writer,
        pytest.raises(DataError, match="no picture could be read"),
    ):
        writer.finish(tokenizer, skipped=9)
    assert list(tmp_path.iterdir()) == []


def test_captions_of_one_picture_are_known_as_such(tmp_path: Path, folder: Path) -> None:
    assert list(TokenFolder(folder).picture_numbers()) == list(range(len(CAPTIONS)))
    assert not (folder / SAME_PICTURE_FILE).exists()
    grids = random_grids(4, 1)
    with TokenWriter(tmp_path / "several", tiny_vae(), crops=1, source="s") as writer:
        for caption, picture, versions in zip("abcd", ["1", None, "2", "1"], grids, strict=True):
            writer.add(caption, versions, picture=picture)
        writer.finish(CaptionTokenizer.train(["a"], 257), skipped=0)
    several = TokenFolder(tmp_path / "several")
    assert several.picture_numbers() == [0, 1, 2, 0]
    fingerprint = several.fingerprint
    np.save(several.folder / SAME_PICTURE_FILE, np.array([0, 1, 2, 2]))
    assert several.fingerprint != fingerprint
    np.save(several.folder / SAME_PICTURE_FILE, np.array([0, 1, 2]))
    with pytest.raises(DataError, match="does not hold 4 numbers"):
        TokenFolder(several.folder)


# ------------------------------------------------------------------------------------ torn folders


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (name, change)
        for name in (TOKENS_FILE, CAPTIONS_FILE, OFFSETS_FILE)
        for change in ("cut", "longer", "empty", "gone")
        # numpy reads as many offsets as its header says, and those are all there.
        if (name, change) != (OFFSETS_FILE, "longer")
    ],
)
def test_files_of_another_length_are_refused(folder: Path, name: str, change: str) -> None:
    path = folder / name
    content = path.read_bytes()
    match change:
        case "cut":
            path.write_bytes(content[:-2])
        case "longer":
            path.write_bytes(content + b"\0\0")
        case "empty":
            path.write_bytes(b"")
        case _:
            path.unlink()
    with pytest.raises(DataError, match=r"tokens is damaged: .*; run `dalle tokenize` again"):
        TokenFolder(folder)


def test_a_token_outside_the_codebook_is_refused_when_it_is_read(folder: Path) -> None:
    tokens = np.fromfile(folder / TOKENS_FILE, dtype="<u2")
    tokens[7] |= 0x100  # one bit of the second picture
    tokens.tofile(folder / TOKENS_FILE)
    found = TokenFolder(folder)
    found.grid(0, 0)
    with pytest.raises(DataError, match=r"picture 1 has token \d+ of 16 codes"):
        found.grid(1, 0)


def test_a_caption_that_is_no_text_is_refused_when_it_is_read(folder: Path) -> None:
    captions = bytearray((folder / CAPTIONS_FILE).read_bytes())
    captions[0] = 0xFF
    (folder / CAPTIONS_FILE).write_bytes(captions)
    found = TokenFolder(folder)
    with pytest.raises(DataError, match="caption 0 is not UTF-8"):
        found.caption(0)


def _set(key: str, value: object) -> Callable[[dict[str, object]], None]:
    return lambda meta: meta.update({key: value})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_set("format_version", 2), "has format_version 2, but this program reads 1"),
        (_set("pictures", "5"), r"pictures must be an integer, got '5'"),
        (_set("pictures", -5), "pictures must be at least 1, got -5"),
        (_set("pictures", 6), "30 tokens instead of 36"),
        (_set("crops", 10**18), "30 tokens instead of"),
        (_set("colour", 1), "unknown keys: colour"),
        (lambda meta: meta.pop("vae"), "lacks the keys vae"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    folder: Path, edit: Callable[[dict[str, object]], None], message: str
) -> None:
    meta = json.loads((folder / META_FILE).read_text())
    edit(meta)
    (folder / META_FILE).write_text(json.dumps(meta))
    with pytest.raises(DataError, match=message):
        TokenFolder(folder)


def test_other_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a token folder: it has no meta\.json; write one"):
        TokenFolder(tmp_path)
    (folder / META_FILE).write_text("{")
    with pytest.raises(DataError, match=r"damaged: .*meta\.json is not JSON"):
        TokenFolder(folder)
