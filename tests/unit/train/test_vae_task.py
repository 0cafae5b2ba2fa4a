"""The dVAE's objective: its terms and weights, and what happens around a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle.config import TrainVae
from dalle.data.order import Draw
from dalle.data.pictures import split_indices
from dalle.errors import DataError
from dalle.seeds import generator
from dalle.train.ranks import Ranks
from dalle.train.task import Batch
from dalle.train.vae_task import VaeTask
from tests.pictures import write_red_squares
from vae.losses import reconstruction_nll
from vae.pixels import to_image_u8, to_pixels

VaeRun = Callable[..., TrainVae]


def batch_of(task: VaeTask, *indices: int) -> Batch:
    return task.collate([task.train_set[Draw(index=index, epoch=0)] for index in indices])


def noise() -> torch.Generator:
    return generator(0, "noise")


def test_the_kl_counts_as_in_the_paper(vae_run: VaeRun) -> None:
    """Appendix A.2: the whole ELB is divided by the number of pixel values.

    At stride 8 that leaves the weight beta / 192 to the KL per cell. Worked out here from sums over
    all cells and pixel values, at the end of the annealing.
    """
    task = VaeTask(
        vae_run(model={"groups": 4}, data={"image_px": 64}, objective={"kl_weight": 6.6})
    )
    batch = batch_of(task, 0, 1, 2)
    loss = task.loss(batch, 10**6, noise())
    pixels = to_pixels(batch.tensors["image_u8"])
    out = task.model(pixels, tau=task.objective.tau_end, generator=noise())
    posterior = torch.softmax(task.model.quantizer.head(task.model.encoder(pixels)), dim=1).double()
    kl_sum = (posterior * (posterior * 16).log()).sum()  # over all cells, prior 1/16
    nll_sum = reconstruction_nll(out.output, pixels, "logit-laplace").double() * 3 * 64 * 64 * 3
    elb_per_value = (nll_sum + 6.6 * kl_sum) / (3 * 64 * 64 * 3)
    assert loss.value.item() == pytest.approx(elb_per_value.item(), rel=1e-5)
    share = (loss.value - loss.metrics["reconstruction"]).item()
    assert share == pytest.approx(6.6 / 192 * loss.metrics["kl_nats_per_token"].item(), rel=1e-3)


def test_annealing_follows_the_step(vae_run: VaeRun) -> None:
    task = VaeTask(vae_run(objective={"kl_weight": 4.0, "tau_steps": 100, "kl_steps": 50}))
    batch = batch_of(task, 0, 1)
    for step, tau, weight in ((0, 1.0, 0.0), (25, None, 2.0), (50, 0.53125, 4.0), (100, 0.0625, 4)):
        metrics = task.loss(batch, step, noise()).metrics
        assert float(metrics["kl_weight"]) == pytest.approx(weight)
        if tau is not None:
            assert float(metrics["tau"]) == pytest.approx(tau)


def test_annealing_ends_with_the_run_unless_told_otherwise(vae_run: VaeRun) -> None:
    """Bug: tau fell over 150,000 steps whatever the run, so short runs never met hard codes."""
    for steps in (40, 400):
        task = VaeTask(
            vae_run(objective={"tau_steps": None, "kl_steps": None}, loop={"steps": steps})
        )
        batch = batch_of(task, 0, 1)
        half, last = (task.loss(batch, step, noise()).metrics for step in (steps // 2, steps))
        assert float(half["tau"]) == pytest.approx(0.53125)
        assert float(half["kl_weight"]) == pytest.approx(6.6)
        assert float(last["tau"]) == pytest.approx(0.0625)


def test_the_sheet_has_each_picture_above_its_reconstruction(vae_run: VaeRun) -> None:
    """Bug: five held-out pictures stood in rows of two and three on a sheet two wide."""
    task = VaeTask(vae_run())
    assert len(task.heldout) == 5
    sheet = task.sample_sheet(task.model)
    rebuilt = to_image_u8(task.model.decode(task.model.encode(to_pixels(task.heldout))))
    cell, gap = 136, 8  # pictures of 16 px are enlarged to 128
    assert sheet.size == (2 * cell + gap, 4 * cell + gap)
    for row, shown in enumerate((task.heldout.numpy(), rebuilt) * 2):
        for column in range(2):
            x, y = column * cell + gap, row * cell + gap
            found = sheet.crop((x, y, x + 128, y + 128)).resize((16, 16), Image.Resampling.NEAREST)
            wanted = shown[column + (2 if row > 1 else 0)]
            assert np.array_equal(np.asarray(found), wanted), (row, column)


def test_the_nearest_quantiser_is_committed_and_has_no_kl(vae_run: VaeRun) -> None:
    task = VaeTask(vae_run(model={"quantizer": "nearest"}, objective={"commitment_weight": 0.5}))
    loss = task.loss(batch_of(task, 0, 1), 3, noise())
    assert set(loss.metrics) == {"reconstruction", "commitment"}, "nothing of it is annealed"
    expected = loss.metrics["reconstruction"] + 0.5 * loss.metrics["commitment"]
    assert float(loss.value.detach()) == pytest.approx(float(expected.detach()))


def test_the_codebook_follows_every_micro_batch_of_the_step(vae_run: VaeRun) -> None:
    """It once followed the last micro-batch alone, so accumulation changed what was learnt."""
    tables = []
    for parts in ([(0, 1, 2, 3)], [(0, 1), (2, 3)]):
        task = VaeTask(vae_run(model={"quantizer": "nearest"}))
        for step in range(2):
            for part in parts:
                task.loss(batch_of(task, *part), step, noise())
            task.after_step(step, noise(), Ranks())
        tables.append(task.model.quantizer.get_buffer("codebook").clone())
    torch.testing.assert_close(tables[0], tables[1])


def test_features_are_kept_only_for_a_codebook_that_follows_them(vae_run: VaeRun) -> None:
    """They were once kept for the Gumbel codebook too, which gradients alone train."""
    for quantizer, kept in (("gumbel", 0), ("nearest", 2)):
        task = VaeTask(vae_run(model={"quantizer": quantizer}))
        for part in ((0, 1), (2, 3)):
            task.loss(batch_of(task, *part), 0, noise())
        assert len(task.chosen) == kept
        task.after_step(0, noise(), Ranks())
        assert task.chosen == []


def test_features_of_a_step_that_was_skipped_are_not_followed(vae_run: VaeRun) -> None:
    tables = []
    for skipped in (False, True):
        task = VaeTask(vae_run(model={"quantizer": "nearest"}))
        if skipped:
            task.loss(batch_of(task, 5, 6), 0, noise())
        task.loss(batch_of(task, 0, 1), 1, noise())
        task.after_step(1, noise(), Ranks())
        tables.append(task.model.quantizer.get_buffer("codebook").clone())
    assert torch.equal(*tables)


def test_a_codebook_that_is_hardly_used_is_warned_about(
    vae_run: VaeRun, caplog: pytest.LogCaptureFixture
) -> None:
    task = VaeTask(vae_run(objective={"min_usage": 0.2}))
    with torch.no_grad():
        task.model.quantizer.head.weight.zero_()
        assert task.model.quantizer.head.bias is not None
        task.model.quantizer.head.bias[3] = 100.0  # every cell takes code 3 of 16
    task.loss(batch_of(task, 0, 1), 0, noise())
    assert task.window_metrics() == {}, "a step that was skipped counts for nothing"
    task.loss(batch_of(task, 0, 1), 1, noise())
    task.after_step(1, noise(), Ranks())
    metrics = task.window_metrics()
    assert metrics == {"codebook_usage": 1 / 16, "codebook_perplexity": pytest.approx(1)}
    assert "only 6.2% of the codebook is in use (objective.min_usage is 20.0%)" in caplog.text
    caplog.clear()
    with torch.no_grad():
        for part, code in ((0, 1), (1, 5), (2, 9), (3, 13)):
            task.model.quantizer.head.bias.fill_(0.0)
            task.model.quantizer.head.bias[code] = 100.0
            task.loss(batch_of(task, part), 2 + part, noise())
            task.after_step(2 + part, noise(), Ranks())
    assert task.window_metrics()["codebook_usage"] == 4 / 16, "the window starts anew each time"
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("quantizer", "remedy"),
    [("gumbel", "raise objective.kl_weight"), ("nearest", "lower optim.lr or model.codebook_size")],
)
def test_the_remedy_is_one_that_the_quantizer_has(
    quantizer: str, remedy: str, vae_run: VaeRun, caplog: pytest.LogCaptureFixture
) -> None:
    task = VaeTask(vae_run(model={"quantizer": quantizer}, objective={"min_usage": 1.0}))
    task.loss(batch_of(task, 0), 0, noise())
    task.after_step(0, noise(), Ranks())
    task.window_metrics()
    assert remedy in caplog.text
    assert ("kl_weight" in caplog.text) == (quantizer == "gumbel")


def test_the_window_survives_a_restart(vae_run: VaeRun) -> None:
    first, second = VaeTask(vae_run()), VaeTask(vae_run())
    first.loss(batch_of(first, 0, 1), 0, noise())
    second.restore_window(first.window())
    assert second.window_metrics() == first.window_metrics()


def test_the_initial_weights_follow_the_seed_and_leave_the_global_stream_alone(
    vae_run: VaeRun,
) -> None:
    before = torch.random.get_rng_state()
    weights = [
        VaeTask(vae_run(loop={"seed": seed})).model.encoder.state_dict()["layers.0.weight"]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_evaluation_rebuilds_from_hard_codes(vae_run: VaeRun) -> None:
    task = VaeTask(vae_run())
    values = task.evaluate(task.model)
    pixels = to_pixels(task.heldout)
    tokens = task.model.encode(pixels)
    error = (task.model.decode(tokens) - pixels).double() / 2
    psnr = -10 * torch.log10(error.square().mean(dim=(1, 2, 3)))  # of each picture by itself
    # Published pictures have whole levels: rounding moves a value by at most half of 1/255.
    assert values["heldout_psnr_db"] == pytest.approx(float(psnr.detach().mean()), abs=0.02)
    assert values["heldout_codebook_usage"] == len(tokens.unique()) / 16
    assert set(values) == {
        "heldout_reconstruction", "heldout_psnr_db", "heldout_codebook_usage",
        "heldout_codebook_perplexity",
    }  # fmt: skip


def test_held_out_pictures_are_not_trained_on(vae_run: VaeRun) -> None:
    task = VaeTask(vae_run())
    assert len(task.heldout) == 5  # a fifth of 24
    assert len(task.train_set) == 19
    _, aside = split_indices(range(24), heldout_fraction=0.2, seed=0)
    assert not set(task.train_set.indices) & set(aside)


def test_unreadable_held_out_pictures_are_named_and_all_of_them_are_too_many(
    vae_run: VaeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_red_squares(tmp_path, damaged=1)
    task = VaeTask(vae_run(data={"heldout": tmp_path}))
    assert len(task.heldout) == 2
    assert "skipped held-out 1.png: " in caplog.text
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 3 held-out pictures can be read.*mend them"):
        VaeTask(vae_run(data={"heldout": tmp_path}))


def test_pictures_need_no_captions(vae_run: VaeRun, tmp_path: Path) -> None:
    """Bug: those without one, of which people have far more, were skipped."""
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 90, 40)).save(tmp_path / f"{number}.png")
    task = VaeTask(vae_run(data={"train": tmp_path, "heldout": tmp_path}))
    found = task.collate([task.train_set[Draw(index=index, epoch=0)] for index in range(6)])
    assert len(found.keys) == 6
    assert not found.faults


def test_the_data_fingerprint_follows_both_sets(vae_run: VaeRun, tmp_path: Path) -> None:
    plain = VaeTask(vae_run()).data_fingerprint
    assert plain == VaeTask(vae_run()).data_fingerprint
    Image.new("RGB", (32, 32), "red").save(tmp_path / "0.png")
    (tmp_path / "0.txt").write_text("a red square")
    other = VaeTask(vae_run(data={"heldout": tmp_path})).data_fingerprint
    assert other != plain
    (tmp_path / "0.txt").write_text("a scarlet square")
    assert VaeTask(vae_run(data={"heldout": tmp_path})).data_fingerprint != other
