"""The dVAE's settings: strides, and sizes that no model can have."""

from __future__ import annotations

import pytest

from vae.config import VaeConfig


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (2, 2), (3, 4), (4, 8)])
def test_stride_doubles_with_each_group_after_the_first(groups: int, stride: int) -> None:
    assert VaeConfig(groups=groups).stride == stride
    assert VaeConfig(groups=groups, patch_px=3).stride == 3 * stride


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"channels": 6}, "channels must be divisible by 4 .*got 6"),
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"groups": 1_000_000_000}, r"groups must be at most 12 \(stride 2048\), got 1000000000"),
        ({"blocks_per_group": -1}, "blocks_per_group must be at least 1, got -1"),
        ({"patch_px": 0}, "patch_px must be at least 1, got 0"),
        ({"codebook_size": 1}, "codebook_size must be at least 2, got 1"),
        ({"codebook_dim": 0}, "codebook_dim must be at least 1, got 0"),
        ({"decoder_channels": 0}, "decoder_channels must be at least 1, got 0; leave it out"),
        ({"decoder_channels": 10}, "decoder_channels must be divisible by 4 .*got 10"),
        ({"decoder_blocks": -2}, "decoder_blocks must be at least 1, got -2; leave it out"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VaeConfig(**settings)  # type: ignore[arg-type]
