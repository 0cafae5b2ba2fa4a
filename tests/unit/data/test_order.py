"""The order of samples: every one once per epoch, and the same wherever a run goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalle.data.order import Draw, StepBatches


def batches(start: int, stop: int, *, size: int = 10, seed: int = 0) -> list[list[Draw]]:
    """Micro-batches of 3, two to a step."""
    plan = StepBatches(size=size, microbatch=3, accumulate=2, seed=seed, start=start, stop=stop)
    assert len(plan) == (stop - start) * 2
    found = list(plan)
    assert len(found) == len(plan)
    return found


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    draws = [draw for batch in batches(0, 5) for draw in batch]  # 30 draws of 10 samples
    epochs = [[draw.index for draw in draws[start : start + 10]] for start in (0, 10, 20)]
    assert [draw.epoch for draw in draws] == [0] * 10 + [1] * 10 + [2] * 10
    for order in epochs:
        assert sorted(order) == list(range(10))
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != sorted(epochs[0])


@given(
    size=st.integers(1, 12),
    microbatch=st.integers(1, 5),
    accumulate=st.integers(1, 3),
    start=st.integers(0, 12),
)
def test_going_on_at_any_step_gives_what_would_have_come(
    size: int, microbatch: int, accumulate: int, start: int
) -> None:
    def plan(first: int) -> list[list[Draw]]:
        return list(
            StepBatches(
                size=size, microbatch=microbatch, accumulate=accumulate, seed=5, start=first,
                stop=12,
            )
        )  # fmt: skip

    assert plan(start) == plan(0)[start * accumulate :]
    assert all(len(batch) == microbatch for batch in plan(start))


def test_steps_do_not_depend_on_how_they_are_split() -> None:
    whole = StepBatches(size=10, microbatch=6, accumulate=1, seed=0, start=0, stop=5)
    assert [draw for batch in batches(0, 5) for draw in batch] == [
        draw for batch in whole for draw in batch
    ]


def test_another_seed_is_another_order() -> None:
    assert batches(0, 2, seed=0) != batches(0, 2, seed=1)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot draw batches from 0 samples"):
        StepBatches(size=0, microbatch=1, accumulate=1, seed=0, start=0, stop=1)
