"""SHA256SUMS: readable by the usual tool, and damage of any kind is found."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from dalle.checksums import SUMS_FILE, verify_sums, write_sums
from dalle.errors import ModelFormatError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "b b.txt").write_text("ü")
    write_sums(tmp_path)
    return tmp_path


def test_the_hash_of_abc_is_the_standards() -> None:
    """FIPS 180-4's example."""
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hashlib.sha256(b"abc").hexdigest() == expected


def test_every_file_is_listed_and_verified(folder: Path) -> None:
    lines = (folder / SUMS_FILE).read_text().splitlines()
    assert lines[0] == f"{hashlib.sha256(b'abc').hexdigest()}  a.bin"
    assert [line[66:] for line in lines] == ["a.bin", "b b.txt"]
    fingerprint = verify_sums(folder, ["a.bin"])
    assert fingerprint == hashlib.sha256(f"{lines[0]}\n".encode()).hexdigest()[:16]


def test_every_file_of_the_bundled_model_is_what_its_list_says() -> None:
    """A card edited after its sum was written once made the page refuse the model."""
    bundled = Path(__file__).parents[2] / "dalle" / "pretrained" / "emoji"
    listed = {line[66:] for line in (bundled / SUMS_FILE).read_text(encoding="utf-8").splitlines()}
    assert {path.name for path in bundled.iterdir()} == listed | {SUMS_FILE}
    assert verify_sums(bundled, sorted(listed))


def test_only_the_required_files_decide_the_fingerprint(folder: Path) -> None:
    before = verify_sums(folder, ["a.bin"])
    (folder / "b b.txt").write_text("another card")
    write_sums(folder)
    assert verify_sums(folder, ["a.bin"]) == before
    assert verify_sums(folder, ["a.bin", "b b.txt"]) != before
    (folder / "a.bin").write_bytes(b"abd")
    write_sums(folder)
    assert verify_sums(folder, ["a.bin"]) != before


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils' sha256sum")
def test_the_usual_tool_agrees(folder: Path) -> None:
    check = subprocess.run(
        ["sha256sum", "--strict", "-c", SUMS_FILE], cwd=folder, capture_output=True, check=False
    )
    assert check.returncode == 0, check.stderr


def test_every_single_flipped_bit_of_a_file_is_found(folder: Path) -> None:
    for bit in range(24):
        content = bytearray(b"abc")
        content[bit // 8] ^= 1 << bit % 8
        (folder / "a.bin").write_bytes(content)
        with pytest.raises(ModelFormatError, match=r"a\.bin is damaged: its SHA-256 differs"):
            verify_sums(folder, ["a.bin"])


def test_every_flipped_byte_of_the_list_itself_is_found_or_changes_the_fingerprint(
    folder: Path,
) -> None:
    whole = verify_sums(folder, ["a.bin", "b b.txt"])
    content = (folder / SUMS_FILE).read_bytes()
    for place in range(len(content)):
        flipped = content[:place] + bytes([content[place] ^ 0x11]) + content[place + 1 :]
        (folder / SUMS_FILE).write_bytes(flipped)
        try:
            assert verify_sums(folder, ["a.bin", "b b.txt"]) != whole
        except ModelFormatError:
            continue


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"SHA256SUMS does not list c\.json, so that cannot"):
        verify_sums(folder, ["a.bin", "c.json"])
    (folder / "a.bin").unlink()
    with pytest.raises(ModelFormatError, match=r"lacks a\.bin, which its SHA256SUMS lists; copy"):
        verify_sums(folder, ["a.bin"])
    (folder / SUMS_FILE).unlink()
    with pytest.raises(ModelFormatError, match=r"has no SHA256SUMS, so its files cannot be"):
        verify_sums(folder, [])


@pytest.mark.parametrize("line", ["0123  ../a.bin", "0123  /etc/passwd", "0123 a.bin", "0123"])
def test_a_list_never_leads_out_of_its_folder(folder: Path, line: str) -> None:
    (folder / SUMS_FILE).write_text(f"{line}\n")
    with pytest.raises(ModelFormatError, match="is not 'HASH  FILE'"):
        verify_sums(folder, [])
