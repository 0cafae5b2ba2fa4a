"""Which folder a model's name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalle.errors import ModelFormatError
from dalle.folders import bundled_models, model_folder


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def test_a_model_folder_is_itself(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")
    assert model_folder(folder) == folder
    assert model_folder(str(folder)) == folder


def test_a_run_folder_means_the_model_in_it(tmp_path: Path) -> None:
    model = make_model(tmp_path / "run" / "model")
    assert model_folder(tmp_path / "run") == model


def test_a_folder_of_that_name_comes_before_a_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "emoji")
    assert model_folder("emoji") == Path("emoji")


def test_every_bundled_model_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, folder in bundled_models().items():
        assert (folder / "config.json").is_file()
        assert model_folder(name) == folder


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    message = rf"{tmp_path} is not a model folder: neither it nor its subfolder `model` has"
    with pytest.raises(ModelFormatError, match=message):
        model_folder(tmp_path)


@pytest.mark.parametrize("name", ["emojy", "no/such/folder", "a\x00b", "../emoji"])
def test_an_unknown_name_is_refused_with_what_there_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFormatError, match="neither a folder nor one of the bundled models"):
        model_folder(name)


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "last.CKPT", "no/such/a.pth"])
def test_a_pickle_is_refused_and_never_opened(name: str, tmp_path: Path) -> None:
    """It was once said not to exist."""
    path = tmp_path / name
    if path.parent.is_dir():
        path.write_bytes(b"")
        path.chmod(0)
    message = rf"{name} is refused: .* are pickles, .* never loaded; give the folder of a model"
    with pytest.raises(ModelFormatError, match=message):
        model_folder(path)


def test_another_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "transformer.safetensors"
    path.write_bytes(b"")
    with pytest.raises(ModelFormatError, match="is a file, not a model folder; give the folder"):
        model_folder(path)


def test_a_folder_may_end_as_pickles_do(tmp_path: Path) -> None:
    assert model_folder(make_model(tmp_path / "best.ckpt")) == tmp_path / "best.ckpt"
