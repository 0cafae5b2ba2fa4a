"""Tar shards as img2dataset writes them: whole, torn, and of every form."""

from __future__ import annotations

import gzip
import io
import json
import logging
import pickle
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from dalle.data.samples import open_samples
from dalle.errors import DataError
from tests.unit.data.sets import captions, png, write_samples, write_tar

COMMITTED = Path(__file__).parents[2] / "data" / "scenes"


def test_shards_are_read_in_any_order(tmp_path: Path) -> None:
    for shard in ("00001", "00000"):
        members = {}
        for key in ("a", "b"):
            members[f"{key}.json"] = json.dumps({"from": shard}).encode()
            members[f"{key}.png"] = png()
            members[f"{key}.txt"] = f"{key} of {shard}".encode()
        write_tar(tmp_path / f"{shard}.tar", members)
    samples = open_samples(tmp_path)
    assert len(samples) == 4
    last = samples[3]
    assert (last.key, last.caption) == ("00001/b", "b of 00001")
    assert samples.truth(3) == {"from": "00001"}
    assert last.image == png()
    assert samples[0].caption == "a of 00000"
    with pytest.raises(IndexError, match="0 to 3, got 4"):
        samples[4]


def test_a_set_works_in_another_process(tmp_path: Path) -> None:
    write_samples(tmp_path / "0.tar", 3)
    samples = open_samples(tmp_path)
    copy = pickle.loads(pickle.dumps(samples))
    assert captions(copy) == captions(samples)
    assert copy.fingerprint == samples.fingerprint


def test_the_fingerprint_follows_the_data(tmp_path: Path) -> None:
    write_samples(tmp_path / "0.tar", 3)
    before = open_samples(tmp_path).fingerprint
    assert open_samples(tmp_path).fingerprint == before
    write_samples(tmp_path / "1.tar", 1)
    assert open_samples(tmp_path).fingerprint != before


def test_a_torn_shard_says_what_it_lost_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = write_samples(tmp_path / "0.tar", 4).read_bytes()
    write_samples(tmp_path / "1.tar", 2)
    # Each sample takes four blocks of 512 bytes; the cut is inside the third one's caption.
    (tmp_path / "0.tar").write_bytes(content[: 512 * 11 + 3])
    with caplog.at_level(logging.WARNING):
        samples = open_samples(tmp_path)
    assert "shard 0.tar: 2 of at least 3 samples can be read" in caplog.text
    assert [samples[index].caption for index in (0, 1, 3, 4)] == [
        "picture 0", "picture 1", "picture 0", "picture 1",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"shard 0\.tar: 2 of at least 3 samples.*'0002\.txt'"):
        samples[2]


@pytest.mark.parametrize("size", range(0, 512 * 18, 256))
def test_every_cut_of_a_shard_is_noticed(tmp_path: Path, size: int) -> None:
    """A reader that trusts the tar library takes a shard cut between members for a whole one."""
    content = write_samples(tmp_path / "0.tar", 4).read_bytes()
    write_samples(tmp_path / "1.tar", 1)
    (tmp_path / "0.tar").write_bytes(content[:size])
    samples = open_samples(tmp_path)
    # A sample's last block holds a caption of 9 bytes; the end mark starts at block 16.
    whole = min((size + 512 - 9) // (512 * 4), 4)
    lost = 0 if size >= 512 * 17 else 1
    assert len(samples) == whole + lost + 1
    for index in range(whole):
        assert samples[index].caption == f"picture {index}"
    if lost:
        with pytest.raises(DataError, match=f"shard 0.tar: {whole} of at least {whole + 1}"):
            samples[whole]


def test_dataset_json_tells_how_many_are_lost(tmp_path: Path) -> None:
    content = write_samples(tmp_path / "0.tar", 4).read_bytes()
    (tmp_path / "0.tar").write_bytes(content[: 512 * 5])
    shards = [{"file": "0.tar", "scenes": 4}, {"file": "1.tar", "scenes": 2}]
    (tmp_path / "dataset.json").write_text(json.dumps({"shards": shards}))
    samples = open_samples(tmp_path)
    assert len(samples) == 6
    with pytest.raises(DataError, match=r"shard 0\.tar: 1 of 4 samples"):
        samples[3]
    with pytest.raises(DataError, match=r"shard 1\.tar: 0 of 2 samples.*missing"):
        samples[5]


@pytest.mark.parametrize(
    "index",
    ["", '{"shards": 3}', '{"shards": [{"file": "../x.tar", "scenes": 1}]}', '{"shards": [{}]}'],
)
def test_a_senseless_dataset_json_is_refused(tmp_path: Path, index: str) -> None:
    write_samples(tmp_path / "0.tar", 1)
    (tmp_path / "dataset.json").write_text(index)
    with pytest.raises(DataError, match=r"dataset\.json"):
        open_samples(tmp_path)


def test_flipped_header_bytes_are_noticed(tmp_path: Path) -> None:
    content = bytearray(write_samples(tmp_path / "0.tar", 3).read_bytes())
    content[512 * 4 + 124] ^= 1  # in the size of the second sample's picture
    (tmp_path / "0.tar").write_bytes(content)
    samples = open_samples(tmp_path)
    assert samples[0].caption == "picture 0"
    with pytest.raises(DataError, match=r"1 of at least 2 samples.*header at byte 2048 is damaged"):
        samples[1]


def test_only_regular_files_count_and_names_are_labels(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")
    folder = tmp_path / "set"
    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as tar:
        for kind, target in ((tarfile.SYMTYPE, str(outside)), (tarfile.LNKTYPE, "../outside.txt")):
            link = tarfile.TarInfo("a.txt")
            link.type, link.linkname = kind, target
            tar.addfile(link)
        device = tarfile.TarInfo("a.json")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
        for name, content in (
            ("../../evil.png", png()),
            ("../../evil.txt", b"a fox"),
            ("/etc/passwd.png", png()),
            ("/etc/passwd.txt", b"a pizza"),
            ("b.pkl", b"never decoded"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    samples = open_samples(folder)
    assert captions(samples) == ["a fox", "a pizza"]
    assert [samples[0].key, samples[1].key] == ["0/../../evil", "0//etc/passwd"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.tar", "outside.txt", "set"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_tar_form(tmp_path: Path, form: int) -> None:
    stem = "/".join(["folder" * 10] * 3) + "/picture"
    write_tar(tmp_path / "0.tar", {f"{stem}.png": png(), f"{stem}.txt": b"a fox"}, form)
    assert open_samples(tmp_path)[0].key == f"0/{stem}"


def test_unicode_names_in_pax_headers(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"füchse.png": png(), "füchse.txt": b"x"}, tarfile.PAX_FORMAT)
    assert open_samples(tmp_path)[0].key == "0/füchse"


def test_equal_keys_stay_two_samples(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for caption in (b"one", b"two"):
            for suffix, content in (("png", png()), ("txt", caption)):
                info = tarfile.TarInfo(f"a.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    samples = open_samples(tmp_path)
    assert captions(samples) == ["one", "two"]
    assert [samples[0].key, samples[1].key] == ["0/a", "0/a#2"]
    assert "more than one sample is called a" in caplog.text


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"a.png": b"x"}, "sample 0/a: it has no caption"),
        ({"a.txt": b"x"}, "sample 0/a: it has no picture"),
        ({"a.png": b"x", "a.txt": b" \n"}, "sample 0/a: the caption is empty"),
        ({"a.png": b"x", "a.txt": b"\xff"}, "sample 0/a: the caption is not UTF-8"),
        ({"a.png": b"x", "a.txt": b"x" * ((1 << 20) + 1)}, "sample 0/a: its caption is too large"),
    ],
)
def test_a_bad_sample_raises_by_name(tmp_path: Path, members: dict[str, bytes], text: str) -> None:
    write_tar(tmp_path / "0.tar", members)
    with pytest.raises(DataError, match=text):
        open_samples(tmp_path)[0]


@pytest.mark.parametrize(
    ("truth", "text"),
    [
        (b"{", "not valid JSON"),
        (b"[1]", "no object"),
        (b"[" * 10**5, "not valid JSON"),
        (b" " * ((1 << 20) + 1), "its truth is too large"),
    ],
)
@pytest.mark.parametrize("layout", ["shards", "folder"])
def test_foreign_json_beside_a_picture_matters_only_to_who_asks_for_truth(
    layout: str, truth: bytes, text: str, tmp_path: Path
) -> None:
    """Label tools put theirs there, and such pictures were once left out of training."""
    members = {"a.png": png(), "a.txt": b"a fox", "a.json": truth}
    if layout == "shards":
        write_tar(tmp_path / "0.tar", members)
    else:
        for name, content in members.items():
            (tmp_path / name).write_bytes(content)
    samples = open_samples(tmp_path)
    assert captions(samples) == ["a fox"]
    with pytest.raises(DataError, match=rf"sample (0/a|a\.png): .*{text}"):
        samples.truth(0)


def test_dots_belong_to_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Such pictures were once left out without a word, while the same folder untarred had them."""
    members: dict[str, bytes] = {}
    for stem in ("IMG_1.1", "IMG_1.2", "v2.0/fox"):
        members |= {f"{stem}.png": png(), f"{stem}.txt": stem.encode()}
    write_tar(tmp_path / "0.tar", members)
    assert captions(open_samples(tmp_path)) == ["IMG_1.1", "IMG_1.2", "v2.0/fox"]
    # As WebDataset names what else there is about a sample; and as macOS does.
    others = {
        "a.png": png(),
        "a.txt": b"a fox",
        "a.mask.png": png(),
        "._a.png": b"",
        "._a.txt": b"",
    }
    write_tar(tmp_path / "0.tar", others)
    samples = open_samples(tmp_path)
    assert [samples[index].key for index in range(len(samples))] == ["0/a"]
    assert not caplog.records


def test_members_may_stand_in_any_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As `tar -C FOLDER .` leaves them; every sample was once read as two incomplete ones."""
    members = {f"./{stem}.png": png() for stem in "abc"}
    members |= {f"./{stem}.txt": f"a {stem}".encode() for stem in "cab"}
    write_tar(tmp_path / "0.tar", members)
    samples = open_samples(tmp_path)
    assert captions(samples) == ["a a", "a b", "a c"]
    assert samples[0].key == "0/a"
    assert not caplog.records


def test_compressed_shards_are_to_be_unpacked(tmp_path: Path) -> None:
    packed = gzip.compress(write_samples(tmp_path / "0.tar", 2).read_bytes())
    (tmp_path / "0.tar").write_bytes(packed)
    with pytest.raises(DataError, match="no readable sample"):
        open_samples(tmp_path)
    (tmp_path / "0.tar").rename(tmp_path / "0.tar.gz")
    with pytest.raises(DataError, match=r"unpack 0\.tar\.gz"):
        open_samples(tmp_path)
    write_samples(tmp_path / "1.TAR", 2)
    (tmp_path / "0.tar.gz").rename(tmp_path / "0.tar")
    with pytest.raises(DataError, match="it is compressed"):
        open_samples(tmp_path)[0]


def test_captions_lose_byte_order_mark_and_white_space(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.png": b"x", "a.txt": b"\xef\xbb\xbf a fox\r\n"})
    assert open_samples(tmp_path)[0].caption == "a fox"


def test_the_committed_shard_reads() -> None:
    samples = open_samples(COMMITTED)
    assert len(samples) == 24
    for index in range(24):
        truth = samples.truth(index)
        assert truth is not None
        assert truth["caption"] == samples[index].caption
        assert Image.open(io.BytesIO(samples[index].image)).size == (64, 64)
