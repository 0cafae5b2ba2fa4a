"""Short runs, and what they have written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from dalle.config import TrainVae
from dalle.train.loop import Trainer
from dalle.train.metrics import read_metrics
from dalle.train.vae_task import VaeTask

VaeRun = Callable[..., TrainVae]
SPARSE = {"eval_every": 100, "sample_every": 100, "save_every": 100}
"""For runs whose evaluations, samples and checkpoints nobody looks at."""


def trainer_of(task: VaeTask, run: TrainVae) -> Trainer:
    run.out.mkdir(parents=True, exist_ok=True)
    return Trainer(
        task, loop=run.loop, optim=run.optim, out=run.out,
        max_bad_fraction=run.data.max_bad_fraction,
    )  # fmt: skip


def train(run: TrainVae, task_type: type[VaeTask] = VaeTask, *, resume: bool = False) -> Trainer:
    trainer = trainer_of(task_type(run), run)
    assert trainer.run(resume=resume) == 0
    return trainer


def metrics(run: TrainVae) -> list[dict[str, float]]:
    """Lines of the training, without those of evaluations."""
    return [line for line in read_metrics(run.out / "metrics.jsonl") if "lr" in line]


def checkpoints(run: TrainVae) -> list[str]:
    return sorted(path.name for path in (run.out / "checkpoints").glob("*"))


def folder_with_bad(folder: Path, *, good: int, bad: int) -> Path:
    """Captioned pictures, the last ones torn."""
    folder.mkdir()
    for number in range(good + bad):
        image = Image.new("RGB", (32, 32), (10 * number % 256, 90, 40))
        image.save(folder / f"{number:03}.png")
        (folder / f"{number:03}.txt").write_text("a square")
        if number >= good:
            (folder / f"{number:03}.png").write_bytes(b"torn")
    return folder


def heldout(tmp_path: Path) -> Path:
    """Pictures to measure on."""
    return folder_with_bad(tmp_path / "heldout", good=2, bad=0)
