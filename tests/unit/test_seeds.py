"""Derived seeds: fixed for ever, and different for whatever differs."""

from __future__ import annotations

import torch

from dalle.seeds import derive_seed, generator


def test_seeds_never_change() -> None:
    """Pictures and runs are reproduced from these numbers, on other machines and years later."""
    assert derive_seed(0, "order", 1) == 5288543681127824561
    assert derive_seed(7, "noise", 12, 0) == 6069497064353627432


def test_every_part_counts_in_its_place_and_with_its_type() -> None:
    parts: list[tuple[int | str, ...]] = [
        (1, 2), (2, 1), (12,), (1, "2"), ("1", 2), (1, 2, ""), ("12",), (1,), (-1,),
    ]  # fmt: skip
    seeds = [derive_seed(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_start_at_their_seed_and_leave_the_global_stream_alone() -> None:
    before = torch.random.get_rng_state()
    first, again = (torch.rand(4, generator=generator(3, "noise")) for _ in range(2))
    other = torch.rand(4, generator=generator(4, "noise"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)
