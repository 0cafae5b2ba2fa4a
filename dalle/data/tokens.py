"""Token folders: captions and the image tokens of their pictures, encoded once.

A folder holds `meta.json`, `tokens.u16` (little-endian, memory-mapped), `captions.txt` (one
normalised caption a line), `captions.offsets.npy`, `tokenizer.json`, the dVAE that made the tokens
in `vae/` and, where pictures have several captions each, `same_picture.npy`. It appears under its
name only when it is complete.

Axes: n pictures, crops versions of each, h w grid rows and columns.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from dalle.captions import CaptionTokenizer
from dalle.checkpoint import load_vae, save_vae
from dalle.checksums import SUMS_FILE, file_sha256
from dalle.errors import DataError
from dalle.schema import build_config, read_object
from dalle.whole_file import partial_folder, require_new
from vae.model import DiscreteVAE

FORMAT_VERSION = 1
MAX_CODEBOOK = 1 << 16
META_FILE = "meta.json"
TOKENS_FILE = "tokens.u16"
CAPTIONS_FILE = "captions.txt"
OFFSETS_FILE = "captions.offsets.npy"
SAME_PICTURE_FILE = "same_picture.npy"
TOKENIZER_FILE = "tokenizer.json"
VAE_FOLDER = "vae"


@dataclass(frozen=True, kw_only=True)
class TokenMeta:
    """What a token folder holds."""

    pictures: int
    crops: int
    grid_h: int
    grid_w: int
    codebook_size: int
    source: str
    """Fingerprint of the pictures."""
    vae: str
    """SHA-256 of the dVAE's SHA256SUMS."""
    skipped: int
    """Pictures that could not be read."""
    tokens_sha256: str | None = dataclasses.field(default=None, metadata={"later": True})
    """Hash of the tokens; None in folders from before it was kept."""
    captions_sha256: str | None = dataclasses.field(default=None, metadata={"later": True})
    """Hash of the captions; None in folders from before it was kept."""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Refuse counts of nothing.

        Raises:
            ValueError: A count is not positive.
        """
        for name in ("pictures", "crops", "grid_h", "grid_w", "codebook_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class TokenWriter:
    """Builds a token folder picture by picture, inside a `with` block.

    Nothing is left behind unless `finish` was reached.
    """

    def __init__(self, folder: Path, vae: DiscreteVAE, *, crops: int, source: str) -> None:
        """Prepare to write beside `folder`.

        Args:
            folder: Name of the finished folder.
            vae: What makes the tokens; stored with them.
            crops: Versions of each picture.
            source: Fingerprint of the pictures.

        Raises:
            ValueError: `folder` exists, or the codebook is too large for 16-bit tokens.
        """
        require_new(folder)
        if vae.config.codebook_size > MAX_CODEBOOK:
            raise ValueError(
                f"codebook_size {vae.config.codebook_size} does not fit 16-bit tokens "
                f"(at most {MAX_CODEBOOK})"
            )
        self.folder = folder
        self.vae = vae
        self.crops = crops
        self.source = source
        self.captions: list[str] = []
        self._numbers: dict[Hashable, int] = {}
        self._picture_of: list[int] = []
        self.grid: tuple[int, int] | None = None
        self._file: BinaryIO | None = None
        self._held = ExitStack()

    def __enter__(self) -> TokenWriter:
        self.partial = self._held.enter_context(partial_folder(self.folder))
        self._file = self._held.enter_context((self.partial / TOKENS_FILE).open("wb"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del kind, error, trace
        self._held.close()

    def add(self, caption: str, grids: np.ndarray, *, picture: Hashable = None) -> None:
        """Append a picture, or one more caption of a picture.

        Args:
            caption: Normalised.
            grids: Of its versions, shape (crops, h, w).
            picture: What it is called, alike for all captions of it; None is like no other.
        """
        assert self._file is not None, "add is for use inside the with block"
        assert grids.shape[0] == self.crops, f"{grids.shape[0]} versions instead of {self.crops}"
        self.grid = (grids.shape[1], grids.shape[2])
        name = ("unnamed", len(self.captions)) if picture is None else picture
        self._picture_of.append(self._numbers.setdefault(name, len(self._numbers)))
        self.captions.append(caption)
        self._file.write(grids.astype("<u2").tobytes())

    def finish(self, tokenizer: CaptionTokenizer, *, skipped: int) -> None:
        """Write everything else and give the folder its name.

        Raises:
            DataError: No picture was added.
        """
        if self.grid is None:
            raise DataError(
                "no picture could be read, so there are no tokens to write; the warnings above "
                "say what is wrong with each"
            )
        assert self._file is not None, "finish is for use inside the with block"
        self._file.flush()
        lines = [caption.encode() + b"\n" for caption in self.captions]
        (self.partial / CAPTIONS_FILE).write_bytes(b"".join(lines))
        ends = np.cumsum([0, *(len(line) for line in lines)], dtype=np.int64)
        np.save(self.partial / OFFSETS_FILE, ends)
        if len(self._numbers) < len(self.captions):
            np.save(self.partial / SAME_PICTURE_FILE, np.array(self._picture_of, dtype=np.int64))
        tokenizer.save(self.partial / TOKENIZER_FILE)
        save_vae(self.partial / VAE_FOLDER, self.vae)
        meta = TokenMeta(
            pictures=len(self.captions),
            crops=self.crops,
            grid_h=self.grid[0],
            grid_w=self.grid[1],
            codebook_size=self.vae.config.codebook_size,
            source=self.source,
            vae=file_sha256(self.partial / VAE_FOLDER / SUMS_FILE),
            skipped=skipped,
            tokens_sha256=file_sha256(self.partial / TOKENS_FILE),
            captions_sha256=file_sha256(self.partial / CAPTIONS_FILE),
        )
        text = json.dumps(dataclasses.asdict(meta), indent=2)
        (self.partial / META_FILE).write_text(text + "\n", encoding="utf-8")
        self.partial.rename(self.folder)


class TokenFolder:
    """Random access to a token folder; only touched pages are read."""

    def __init__(self, folder: Path) -> None:
        """Open `folder`.

        Raises:
            DataError: It is missing, of another version, or its files do not fit each other.
        """
        self.folder = folder
        self.meta = _read_meta(folder)
        meta = self.meta
        shape = (meta.pictures, meta.crops, meta.grid_h, meta.grid_w)
        self._picture_of: np.ndarray | None
        try:
            tokens = np.memmap(folder / TOKENS_FILE, dtype="<u2", mode="r")
            self._captions = np.memmap(folder / CAPTIONS_FILE, dtype=np.uint8, mode="r")
            self._offsets = np.load(folder / OFFSETS_FILE, mmap_mode="r", allow_pickle=False)
            self._picture_of = None
            if (folder / SAME_PICTURE_FILE).exists():
                self._picture_of = np.load(folder / SAME_PICTURE_FILE, allow_pickle=False)
        except (OSError, ValueError, EOFError) as err:
            raise _damaged(folder, err) from err
        if tokens.size != math.prod(shape):
            raise _damaged(folder, f"{tokens.size:,} tokens instead of {math.prod(shape):,}")
        self._tokens = tokens.reshape(shape)
        if self._offsets.shape != (meta.pictures + 1,) or self._offsets.dtype != np.int64:
            raise _damaged(folder, f"{OFFSETS_FILE} does not hold {meta.pictures + 1} offsets")
        if self._picture_of is not None and self._picture_of.shape != (meta.pictures,):
            raise _damaged(folder, f"{SAME_PICTURE_FILE} does not hold {meta.pictures} numbers")
        if self._offsets[0] != 0 or self._offsets[-1] != self._captions.size:
            raise _damaged(
                folder, f"captions end at {self._offsets[-1]} of {self._captions.size} bytes"
            )

    def __len__(self) -> int:
        return self.meta.pictures

    @property
    def fingerprint(self) -> str:
        """A hash that changes with the tokens, captions, pictures, dVAE and tokenizer."""
        digest = hashlib.sha256((self.folder / META_FILE).read_bytes())
        digest.update(file_sha256(self.folder / TOKENIZER_FILE).encode())
        same_picture = self.folder / SAME_PICTURE_FILE
        if same_picture.exists():
            digest.update(file_sha256(same_picture).encode())
        return digest.hexdigest()

    def picture_numbers(self) -> Sequence[int]:
        """Which picture each entry shows, by number: alike where it has several captions."""
        if self._picture_of is None:
            return range(len(self))
        numbers: list[int] = self._picture_of.tolist()
        return numbers

    def caption(self, index: int) -> str:
        """Normalised caption of picture `index`.

        Raises:
            DataError: The captions are damaged there.
        """
        start, stop = int(self._offsets[index]), int(self._offsets[index + 1])
        try:
            return bytes(self._captions[start : stop - 1]).decode()
        except UnicodeDecodeError as err:
            raise _damaged(self.folder, f"caption {index} is not UTF-8") from err

    def captions(self) -> Iterator[str]:
        """All captions in order."""
        return (self.caption(index) for index in range(len(self)))

    def grid(self, index: int, crop: int) -> np.ndarray:
        """Token grid of version `crop` of picture `index`, shape (h, w), int64.

        Raises:
            DataError: The tokens are damaged there.
        """
        grid = np.asarray(self._tokens[index, crop], dtype=np.int64)
        if grid.max() >= self.meta.codebook_size:
            raise _damaged(
                self.folder,
                f"picture {index} has token {grid.max()} of {self.meta.codebook_size} codes",
            )
        return grid

    def tokenizer(self) -> CaptionTokenizer:
        """The tokenizer that belongs to the captions.

        Raises:
            ModelFormatError: It cannot be read.
        """
        return CaptionTokenizer.load(self.folder / TOKENIZER_FILE)

    def vae(self) -> DiscreteVAE:
        """The dVAE that made the tokens.

        Raises:
            ModelFormatError: It cannot be read.
        """
        return load_vae(self.folder / VAE_FOLDER)


def _damaged(folder: Path, what: object) -> DataError:
    return DataError(f"token folder {folder} is damaged: {what}; run `dalle tokenize` again")


def _read_meta(folder: Path) -> TokenMeta:
    path = folder / META_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} is not a token folder: it has no {META_FILE}; write one with "
            "`dalle tokenize`"
        )
    try:
        tree = read_object(path)
        version = tree.get("format_version")
        if version != FORMAT_VERSION:
            raise DataError(
                f"{path} has format_version {version!r}, but this program reads "
                f"{FORMAT_VERSION}; run `dalle tokenize` again"
            )
        return build_config(TokenMeta, tree, where=str(path))
    except (OSError, ValueError) as err:
        raise _damaged(folder, err) from err
