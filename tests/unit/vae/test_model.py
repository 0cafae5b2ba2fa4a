"""The dVAE's shapes, its paper architecture, and what it refuses."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from vae import DiscreteVAE, VaeConfig
from vae.losses import mean_pixels
from vae.model import Decoder, Encoder, ResidualBlock, in_cache

KINDS: tuple[Literal["gumbel", "nearest"], ...] = ("gumbel", "nearest")


def tiny(quantizer: Literal["gumbel", "nearest"] = "gumbel", **changes: int) -> DiscreteVAE:
    torch.manual_seed(0)
    sizes = {"channels": 8, "groups": 3, "blocks_per_group": 1, "codebook_size": 16} | changes
    return DiscreteVAE(VaeConfig(**sizes, codebook_dim=4, quantizer=quantizer))  # type: ignore[arg-type]


def pictures(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def blocks(stack: nn.Module) -> list[ResidualBlock]:
    return [module for module in stack.modules() if isinstance(module, ResidualBlock)]


def kernels(block: ResidualBlock) -> list[int]:
    return [layer.kernel_size[0] for layer in block.residual if isinstance(layer, nn.Conv2d)]


# ----------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("count", [0, 3])
@torch.inference_mode()
def test_pictures_taken_in_parts_are_what_all_at_once_are(count: int) -> None:
    vae = tiny()
    seen = pictures(count, 3, 512, 512)
    assert len(in_cache(seen, each=8 * 512 * 512)) == max(1, count)
    grid = vae.encode(seen)
    assert torch.equal(grid, vae.quantizer.tokens(vae.encoder(seen)))
    whole = mean_pixels(vae.decoder(vae.quantizer.embed(grid)), vae.config.likelihood)
    torch.testing.assert_close(vae.decode(grid), whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(4, 4), (16, 24), (64, 8)])
def test_any_size_that_the_stride_divides(
    kind: Literal["gumbel", "nearest"], height: int, width: int
) -> None:
    vae = tiny(kind)
    grid = vae.encode(pictures(2, 3, height, width))
    assert grid.shape == (2, height // 4, width // 4)
    assert grid.dtype == torch.int64
    assert 0 <= int(grid.min()) <= int(grid.max()) < 16
    rebuilt = vae.decode(grid).detach()
    assert rebuilt.shape == (2, 3, height, width)
    assert rebuilt.dtype == torch.float32
    assert -1 <= float(rebuilt.min()) <= float(rebuilt.max()) <= 1
    out = vae(pictures(2, 3, height, width), tau=1.0)
    assert out.output.shape == (2, 6, height, width)
    assert out.quantized.codes.shape == (2, 4, height // 4, width // 4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 18, 16), r"divisible by the stride \(4\), got 18 x 16; resize or crop"),
        ((1, 3, 16, 18), r"divisible by the stride \(4\), got 16 x 18; resize or crop"),
        ((1, 1, 16, 16), r"shape \(b, 3, y, x\), got \(1, 1, 16, 16\)"),
        ((3, 16, 16), r"shape \(b, 3, y, x\), got \(3, 16, 16\)"),
    ],
)
def test_other_pictures_are_refused(shape: tuple[int, ...], message: str) -> None:
    vae = tiny()
    with pytest.raises(ValueError, match=message):
        vae.encode(torch.zeros(shape))
    with pytest.raises(ValueError, match=message):
        vae(torch.zeros(shape), tau=1.0)


def test_other_token_grids_are_refused() -> None:
    vae = tiny()
    with pytest.raises(ValueError, match=r"codes in 0\.\.\.15, got 0\.\.\.16"):
        vae.decode(torch.tensor([[[0, 16]]]))
    with pytest.raises(ValueError, match=r"codes in 0\.\.\.15, got -1\.\.\.3"):
        vae.decode(torch.tensor([[[3, -1]]]))
    with pytest.raises(ValueError, match=r"shape \(b, h, w\), got \(1, 4\)"):
        vae.decode(torch.zeros(1, 4, dtype=torch.int64))


# ---------------------------------------------------------------------------------- no randomness


@pytest.mark.parametrize("kind", KINDS)
def test_encode_has_no_noise_and_no_modes(kind: Literal["gumbel", "nearest"]) -> None:
    vae = tiny(kind)
    x = pictures(3, 3, 16, 16)
    torch.manual_seed(1)
    first = vae.train().encode(x)
    torch.manual_seed(2)
    assert torch.equal(first, vae.eval().encode(x))
    assert torch.equal(first[1:2], vae.encode(x[1:2]))
    assert len(first.unique()) > 1, "one code for everything would pass any comparison"


def test_training_noise_comes_from_the_generator_alone() -> None:
    vae, x = tiny(), pictures(2, 3, 16, 16)

    def output(seed: int) -> Tensor:
        return vae(x, tau=1.0, generator=torch.Generator().manual_seed(seed)).output  # type: ignore[no-any-return]

    assert torch.equal(output(0), output(0))
    assert not torch.equal(output(0), output(1))


# ------------------------------------------------------------------------- the paper's architecture


@pytest.mark.parametrize(("groups", "per_group", "gain"), [(4, 2, 1 / 64), (3, 1, 1 / 9)])
def test_residual_branches_are_scaled_by_the_inverse_square_of_their_number(
    groups: int, per_group: int, gain: float
) -> None:
    vae = tiny(groups=groups, blocks_per_group=per_group)
    for stack in (vae.encoder, vae.decoder):
        assert len(blocks(stack)) == groups * per_group
        assert {block.gain for block in blocks(stack)} == {gain}


def test_a_block_adds_its_scaled_branch_to_its_input() -> None:
    torch.manual_seed(0)
    x = pictures(1, 8, 5, 5)
    same = ResidualBlock(8, 8, kernels=(3, 3, 3, 1), gain=0.25)
    torch.testing.assert_close(same(x), x + 0.25 * same.residual(x))
    wider = ResidualBlock(8, 16, kernels=(3, 3, 3, 1), gain=0.25)
    assert isinstance(wider.shortcut, nn.Conv2d)
    assert wider.shortcut.kernel_size == (1, 1)
    torch.testing.assert_close(wider(x), wider.shortcut(x) + 0.25 * wider.residual(x))


def test_kernels_are_the_papers() -> None:
    """Appendix A.1: 7x7 first, 1x1 around the relaxation and at the end, 3x3 elsewhere."""
    vae = tiny()
    assert isinstance(vae.encoder, Encoder)
    assert isinstance(vae.decoder, Decoder)
    stem, *_, last = vae.encoder.layers
    assert isinstance(stem, nn.Conv2d)
    assert stem.kernel_size == (7, 7)
    assert isinstance(last, nn.ReLU)
    assert {tuple(kernels(block)) for block in blocks(vae.encoder)} == {(3, 3, 3, 1)}
    assert {tuple(kernels(block)) for block in blocks(vae.decoder)} == {(1, 3, 3, 3)}
    assert vae.quantizer.head.kernel_size == (1, 1)
    end = vae.decoder.layers[-1]
    assert isinstance(end, nn.Conv2d)
    assert (end.kernel_size, end.out_channels) == ((1, 1), 6)


def test_widths_double_and_bottlenecks_are_a_quarter() -> None:
    vae = tiny()
    for stack, widths in ((vae.encoder, [8, 16, 32]), (vae.decoder, [32, 16, 8])):
        convolutions = [
            [layer for layer in block.residual if isinstance(layer, nn.Conv2d)]
            for block in blocks(stack)
        ]
        assert [layers[-1].out_channels for layers in convolutions] == widths
        assert [layers[1].out_channels for layers in convolutions] == [w // 4 for w in widths]


def test_pictures_shrink_by_max_pooling_and_grow_by_repetition() -> None:
    vae = tiny()
    pools = [layer for layer in vae.encoder.layers if isinstance(layer, nn.MaxPool2d)]
    grows = [layer for layer in vae.decoder.layers if isinstance(layer, nn.Upsample)]
    assert len(pools) == len(grows) == 2
    assert {layer.mode for layer in grows} == {"nearest"}


def test_what_grows_is_computed_once_for_all_copies_and_comes_out_as_if_for_each() -> None:
    vae = tiny()
    assert isinstance(vae.decoder, Decoder)
    codes = pictures(2, 4, 3, 5)
    torch.testing.assert_close(vae.decoder(codes), vae.decoder.layers(codes))


@pytest.mark.parametrize("patch_px", [2, 3])
def test_a_patch_is_one_cell_of_the_finest_group(patch_px: int) -> None:
    vae = tiny("nearest", patch_px=patch_px)
    assert vae.config.stride == 4 * patch_px
    assert isinstance(vae.encoder, Encoder)
    pixels = pictures(2, 3, 24, 48)
    first = vae.encoder.layers[0](pixels)
    assert first.shape == (2, 8, 24 // patch_px, 48 // patch_px)
    picture = vae.decode(vae.encode(pixels))
    assert picture.shape == pixels.shape
    assert len(picture[0, 0, :patch_px, :patch_px].unique()) == patch_px**2


def test_a_stem_of_patches_sees_three_pixels_beyond_each() -> None:
    stem = tiny(patch_px=2).encoder.layers[0]
    pixels = torch.zeros(1, 3, 24, 24, requires_grad=True)
    stem(pixels)[0, :, 5, 6].sum().backward()
    assert pixels.grad is not None
    rows, columns = pixels.grad[0, 0].nonzero().T
    assert (rows.min(), rows.max()) == (10 - 3, 11 + 3)
    assert (columns.min(), columns.max()) == (12 - 3, 13 + 3)


def test_weights_start_at_the_inverse_root_of_their_fan_in_and_biases_at_zero() -> None:
    vae = tiny(channels=64)
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * math.prod(module.kernel_size)
            count = module.weight.numel()
            # The standard error of a standard deviation is 1 / sqrt(2 n) of it; five of them.
            tolerance = 5 / math.sqrt(2 * count)
            ratio = module.weight.std().item() * math.sqrt(fan_in)
            assert ratio == pytest.approx(1, rel=tolerance)
            assert module.bias is not None
            assert not module.bias.any()


@pytest.mark.parametrize("patch_px", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(kind: Literal["gumbel", "nearest"], patch_px: int) -> None:
    vae = tiny(kind, patch_px=patch_px)
    vae(pictures(2, 3, 32, 32), tau=1.0).output.square().sum().backward()
    silent = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_the_package_offers_its_names_and_no_others() -> None:
    import vae as package

    assert dir(package) == ["DiscreteVAE", "VaeConfig"]
    with pytest.raises(AttributeError, match="no attribute 'VQGAN'"):
        _ = package.VQGAN
