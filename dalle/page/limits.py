"""What the page refuses, whatever a browser or a program asks for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dalle.config.ranges import require_positive


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The page's limits; all are checked in the server, since a browser's checks are not."""

    caption_chars: int = 1000
    """Longest caption."""
    candidates: int = 64
    """Most pictures drawn for one caption."""
    keep: int = 64
    """Most pictures returned for one caption."""
    batch_rows: int = 50
    """Most captions of an uploaded file."""
    caption_file_bytes: int = 256 * 1024
    """Largest uploaded file of captions: more than so many captions of such length take up."""
    grid_cells: int = 36
    """Most cells of an X/Y grid."""
    grid_candidates: int = 256
    """Most pictures drawn for an X/Y grid, all cells together."""
    running: int = 1
    """Jobs that draw at the same time."""
    waiting: int = 16
    """Most jobs that wait for their turn."""
    per_client: int = 2
    """Most jobs of one client, running and waiting together."""
    jobs_per_minute: int = 20
    """Most jobs that one client begins a minute, once a first burst of as many is spent."""
    clients: int = 10_000
    """Most clients whose recent jobs are remembered."""
    sessions: int = 500
    """Most visitors whose results are remembered; each call of a program is one, too."""
    job_seconds: float = 300.0
    """Longest time that a job may draw."""
    upload_bytes: int = 20 * 1024**2
    """Largest uploaded file."""
    pixels: int = 40_000_000
    """Most pixels of an uploaded picture."""
    decoding: int = 2
    """Uploaded pictures that are decoded at the same time."""
    decode_seconds: int = 20
    """Longest time that decoding a picture may take, of the processor and by the clock."""
    decode_bytes: int = 1536 * 1024**2
    """Address space of the process that decodes a picture."""
    received_bytes: int = 2 * 1024**3
    """Disk space of everything in the page's folder, uploads and results, beyond which no upload is
    taken."""
    result_bytes: int = 1024**3
    """Disk space of the page's folder of results."""

    def __post_init__(self) -> None:
        """Refuse limits that let nothing through.

        Raises:
            ValueError: One of them is not greater than 0.
        """
        require_positive(self, *(field.name for field in fields(self)))
