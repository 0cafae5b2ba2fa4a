"""Files of torch's, read without torch: honest ones of all kinds, and forged ones."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dalle.errors import ModelFormatError
from dalle.foreign_tensors import ForeignTensors
from dalle.torch_file import TorchFile
from dalle.torch_pickle import BrokenFileError

HEAD: tuple[object, ...] = (0x1950A86A20F9469CFC6C, 1001, {}, {})
LEGACY: dict[str, Any] = {"_use_new_zipfile_serialization": False}


class Attributes(dict[str, Any]):
    """A mapping of a class of its own, as training frameworks keep settings in."""


def module() -> nn.Module:
    torch.manual_seed(0)
    parts = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Conv2d(4, 2, 3)))
    parts[0].weight.note = "kept"  # type: ignore[union-attr]
    parts.again = parts[0]
    parts.register_parameter("halved", nn.Parameter(torch.randn(5).half()))
    parts.register_buffer("turned", torch.arange(12.0).reshape(3, 4).T)
    parts.register_buffer("part", torch.arange(9.0)[2:7:2])
    parts.register_buffer("none", torch.zeros(0, 3))
    parts.register_buffer("passing", torch.ones(2), persistent=False)
    parts.turned.note = "kept"  # type: ignore[union-attr]
    return parts


def saved(what: object, path: Path, options: Mapping[str, Any]) -> TorchFile:
    torch.save(what, path, **options)
    return TorchFile(path)


@pytest.mark.parametrize(
    "options",
    [{}, LEGACY, *({"pickle_protocol": number} for number in (3, 4, 5))],
    ids=["zip", "legacy", "protocol 3", "protocol 4", "protocol 5"],
)
@pytest.mark.parametrize("kind", ["module", "state", "checkpoint"])
def test_every_tensor_comes_back(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    whole = module()
    state = whole.state_dict()
    loop: tuple[list[Any]] = ([],)
    loop[0].append(loop)  # which a pickle begins, drops and takes from its memory
    counted: defaultdict[str, Any] = defaultdict(list, {"a": [1]})
    tree = {
        "epoch": 2**40,
        "rate": 0.5,
        "flags": [True, None, (1, 2, 3, 4)],
        "state_dict": Attributes(state),
        "settings": Attributes(width=3, names=OrderedDict(a=1)),
        "counted": counted,
        "optimizer": {0: {"step": torch.tensor(3), "mean": torch.ones(4)}},
        "path": Path("runs"),
        "others": [
            {1, 2},
            frozenset({3}),
            b"bytes",
            1j,
            2**3000,
            "x" * 300,
            np.ones(3),
            torch.float,
        ],
        "loop": loop,
        "unread": torch.ones(2, dtype=torch.complex64),
    }
    what = {"module": whole, "state": state, "checkpoint": tree}[kind]
    file = saved(what, tmp_path / "file.pt", options)
    assert file.tensors.keys() == state.keys()
    for name in file.tensors:
        found = file.read(name)
        assert found.dtype == state[name].dtype
        assert torch.equal(found, state[name]), name
        assert file.tensors[name].shape == tuple(state[name].shape)


class Malicious:
    """Runs a command when it is unpickled by the book."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_nothing_is_called(options: dict[str, Any], tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    tree = {"w": torch.ones(1), "x": Malicious(f"touch {proof}")}
    assert saved(tree, tmp_path / "bad.pt", options).tensors.keys() == {"w"}
    assert not proof.exists()
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert proof.exists(), "by the book it is"


class Scripted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_programs_of_torchs_own_are_not_run(tmp_path: Path) -> None:
    """Bug: torch.load hands such archives on to a machine that runs what they bring."""
    torch.jit.script(Scripted()).save(str(tmp_path / "script.pt"))
    repacked = tmp_path / "stored.pt"
    with (
        zipfile.ZipFile(tmp_path / "script.pt") as source,
        zipfile.ZipFile(repacked, "w", zipfile.ZIP_STORED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with contextlib.suppress(BrokenFileError):
        assert not TorchFile(repacked).tensors


def forged(instructions: bytes, path: Path) -> Path:
    """A file whose pickle is this."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + instructions + b".")
    return path


def test_forged_files_end_soon_and_small(tmp_path: Path) -> None:
    nested = b")"
    for number in range(64):  # a tuple of itself, twice: 2^64 parts to hash or to write down
        put = b"q" + bytes([number])
        nested += put + b"h" + bytes([number]) + b"\x86"
    assert not TorchFile(forged(b"}" + nested + b"K\x01s", tmp_path / "a")).tensors
    for name, instructions in {
        "id": nested + b"Q",
        "memo": b"}r" + struct.pack("<I", 2**31 - 1) + b"j" + struct.pack("<I", 7),
        "bytes": b"\x96" + struct.pack("<Q", 2**40),
        "long": b"\x8b" + struct.pack("<i", 2**30),
        "empty": b"",
        "tuple": b"\x87",
        "mark": b"t",
        "text": b"X" + struct.pack("<I", 2**31 - 1) + b"a",
        "call": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    }.items():
        with pytest.raises(BrokenFileError):
            TorchFile(forged(instructions, tmp_path / name))


def test_forged_old_files_end_soon(tmp_path: Path) -> None:
    head = b"".join(pickle.dumps(one, 2) for one in HEAD)
    nested = b")" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(64))
    storage = (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000N\x8a\x07" + b"\x7f" * 7 + b"tQ"
    )
    for name, tail in {
        "key": b"\x80\x02]" + nested + b"a.",
        "named": b"\x80\x04(X\x07\0\0\0storage" + nested + nested + b"\x93NNNtQ.",
        "size": b"\x80\x02" + storage + b"." + pickle.dumps(["0"], 2) + b"\x7f" * 7 + b"\0",
        "endless": b"\x80\x02" + b"N0" * 1_000_001 + b"N.",
    }.items():
        path = tmp_path / name
        path.write_bytes((head if name != "size" else head[: head.rindex(b"\x80")]) + tail)
        with pytest.raises(BrokenFileError):
            TorchFile(path)


def test_parts_without_end_are_refused(tmp_path: Path) -> None:
    part = nn.Linear(1, 1)
    part.me = part
    with pytest.raises(BrokenFileError, match="longer names, than models have"):
        saved(part, tmp_path / "round.pt", {})
    deep: nn.Module = nn.Linear(1, 1)
    for _ in range(60):
        deep = nn.ModuleDict({"long_name": deep})
    with pytest.raises(BrokenFileError, match="longer names, than models have"):
        saved(deep, tmp_path / "deep.pt", {})


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_no_tensor_is_larger_than_what_is_stored(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    file = saved({"w": torch.ones(1).expand(2000), "v": torch.ones(1)}, path, options)
    assert torch.equal(file.read("v"), torch.ones(1)), "what nobody asks for does no harm"
    with pytest.raises(BrokenFileError, match="larger than what is stored"):
        file.read("w")
    if options:
        torch.save({"w": torch.ones(2, 2)}, path, **options)
        small, large = b"K\x02K\x02\x86", b"K\x7fK\x7f\x86"
        assert path.read_bytes().count(small) == 1 or path.read_bytes().count(small) == 2
        path.write_bytes(path.read_bytes().replace(small, large, 1))
        with pytest.raises(BrokenFileError, match="larger than what is stored"):
            TorchFile(path).read("w")


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    for options in ({}, LEGACY):
        torch.save(module(), path, **options)
        whole = path.read_bytes()
        for cut in (0, 10, len(whole) // 2, len(whole) - 30, len(whole) - 1):
            path.write_bytes(whole[:cut])
            with pytest.raises(ModelFormatError, match="cannot be read as a file of torch's"):
                ForeignTensors(path)
        if not options:
            directory = whole.rindex(b"PK\x01\x02")
            path.write_bytes(whole[:directory] + b"XX" + whole[directory + 2 :])
            with pytest.raises(ModelFormatError, match="cannot be read as a file of torch's"):
                ForeignTensors(path)
    path.write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(ModelFormatError, match="cannot be read as a file of torch's"):
        ForeignTensors(path)
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        ForeignTensors(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFormatError, match="is no file"):
        ForeignTensors(tmp_path / "pipe")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", "y")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ModelFormatError, match=r"without torch's data\.pkl"):
        ForeignTensors(path)


def test_values_that_are_claimed_twice_are_refused(tmp_path: Path) -> None:
    shared = torch.ones(1000)
    torch.save({str(number): shared for number in range(50)}, tmp_path / "file.pt")
    file = ForeignTensors(tmp_path / "file.pt")
    for name in file.names:
        file.take(name, (1000,))
    assert file.problems == [f"{tmp_path / 'file.pt'} claims more values than it holds"]


def test_safetensors_of_other_types_are_no_floats(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"a": torch.ones(2, dtype=torch.float16), "b": torch.ones(2, dtype=torch.int8)}, path)
    file = ForeignTensors(path)
    assert torch.equal(file.take("a", (2,)), torch.ones(2))
    file.take("b", (2,))
    assert len(file.problems) == 1
    assert "b of " in file.problems[0]
    path.write_bytes(b"0" * 50)
    with pytest.raises(ModelFormatError, match="cannot be read as safetensors"):
        ForeignTensors(path)
