"""`dalle import vae`: OpenAI's published dVAE as a folder of ours, token for token the same.

Source: the layout of openai/DALL-E, whose encoder and decoder this project's dVAE generalises.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from dalle.checkpoint import save_vae
from dalle.checksums import file_sha256
from dalle.config import ImportVae
from dalle.errors import ModelFormatError
from dalle.foreign_tensors import read_tensors
from dalle.weights import check_replaceable, require_finite
from vae import VaeConfig
from vae.model import DiscreteVAE, ResidualBlock

log = logging.getLogger(__name__)

_STEM, _CODES, _HEAD = "blocks.input", "blocks.input", "blocks.output.conv"
_IN_BLOCK = {
    "shortcut": "id_path",
    **{f"residual.{2 * place + 1}": f"res_path.conv_{place + 1}" for place in range(4)},
}
"""Names of a residual block's convolutions: ours, and theirs."""


def run(settings: ImportVae) -> int:
    """Read both files, write the folder; 0 when done.

    Raises:
        ModelFormatError: A file cannot be read, or is no encoder or decoder of this kind.
        ValueError: Something other than a model stands where it shall be written.
        OSError: A file cannot be read or written.
    """
    check_replaceable(settings.out)
    encoder, decoder = read_tensors(settings.encoder), read_tensors(settings.decoder)
    config = _config(settings, encoder, decoder)
    with torch.device("meta"):  # shapes alone, until they are known to be those of the files
        vae = DiscreteVAE(config)
    places = {**dict(_encoder_names(vae)), **dict(_decoder_names(vae))}
    tensors = _renamed(settings, vae, places, {"encoder": encoder, "decoder": decoder})
    require_finite(tensors.items(), f"{settings.encoder}, {settings.decoder}")
    vae.load_state_dict(tensors, assign=True)
    save_vae(settings.out, vae, card=_card(settings, vae))
    log.info(
        "%s holds a dVAE of stride %d and %d codes; `dalle tokenize --vae %s --image_px %d` comes "
        "next, for pictures of any size that %d divides",
        settings.out, config.stride, config.codebook_size, settings.out, 32 * config.stride,
        config.stride,
    )  # fmt: skip
    return 0


def _config(
    settings: ImportVae, encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]
) -> VaeConfig:
    """The shape that the files' tensors have.

    Raises:
        ModelFormatError: They have none that this dVAE can have.
    """
    shapes = []
    for path, tensors, names in (
        (settings.encoder, encoder, (_STEM, _HEAD)),
        (settings.decoder, decoder, (_CODES, _HEAD)),
    ):
        for name in (f"{name}.w" for name in names):
            if name not in tensors or tensors[name].ndim != 4:
                found = ", ".join(list(tensors)[:3])
                raise ModelFormatError(
                    f"{path} has no convolution {name}, as OpenAI's dVAE has; its first tensors "
                    f"are {found}"
                )
            shapes.append(tensors[name].shape)
    stem, head, codes, output = shapes
    if stem[1] != 3 or output[0] != 6:
        raise ModelFormatError(
            f"{settings.encoder} must read 3 channels and {settings.decoder} give 6, got {stem[1]} "
            f"and {output[0]}; give OpenAI's encoder.pkl as encoder and decoder.pkl as decoder"
        )
    groups, blocks = (
        max(
            (int(found) for found in re.findall(rf"\b{word}_(\d+)\.", " ".join(encoder))), default=0
        )
        for word in ("group", "block")
    )
    try:
        return VaeConfig(
            channels=stem[0],
            groups=groups,
            blocks_per_group=blocks,
            squeezed_input=True,
            codebook_size=head[0],
            codebook_dim=codes[0],
            quantizer="gumbel",
            likelihood="logit-laplace",
        )
    except ValueError as err:
        raise ModelFormatError(f"{settings.encoder} is of no shape of a dVAE: {err}") from err


Place = tuple[str, str]
"""Which file a convolution stands in, and its name there."""


def _encoder_names(vae: DiscreteVAE) -> Iterator[tuple[str, Place]]:
    """Each convolution of ours, and where it stands in theirs."""
    yield "encoder.layers.0", ("encoder", _STEM)
    for ours, theirs in _block_names(vae.encoder.layers, vae.config.blocks_per_group):
        yield f"encoder.layers.{ours}", ("encoder", theirs)
    yield "quantizer.head", ("encoder", _HEAD)


def _decoder_names(vae: DiscreteVAE) -> Iterator[tuple[str, Place]]:
    for ours, theirs in _block_names(vae.decoder.layers, vae.config.decoder_shape[1]):
        yield f"decoder.layers.{ours}", ("decoder", theirs)
    yield f"decoder.layers.{len(vae.decoder.layers) - 1}", ("decoder", _HEAD)


def _block_names(layers: nn.Sequential, blocks: int) -> Iterator[tuple[str, str]]:
    residual = [place for place, one in enumerate(layers) if isinstance(one, ResidualBlock)]
    for number, place in enumerate(residual):
        group, block = divmod(number, blocks)
        for ours, theirs in _IN_BLOCK.items():
            if isinstance(layers[place].get_submodule(ours), nn.Conv2d):
                yield f"{place}.{ours}", f"blocks.group_{group + 1}.block_{block + 1}.{theirs}"


def _renamed(
    settings: ImportVae,
    vae: DiscreteVAE,
    places: Mapping[str, Place],
    files: Mapping[str, Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """Their tensors by our names, float32.

    Raises:
        ModelFormatError: One is missing, left over, or of another shape.
    """
    paths = {"encoder": settings.encoder, "decoder": settings.decoder}
    wanted = {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}
    left = {(file, name) for file, tensors in files.items() for name in tensors}
    problems: list[str] = []

    def take(file: str, name: str, shape: tuple[int, ...]) -> Tensor:
        left.discard((file, name))
        found = files[file].get(name)
        if found is None or tuple(found.shape) != shape or not found.is_floating_point():
            what = "missing" if found is None else f"{found.dtype} {tuple(found.shape)}"
            problems.append(f"{name} of {paths[file]} is {what}, not floats {shape}")
            return torch.empty(0)
        return found.float().contiguous()

    tensors: dict[str, Tensor] = {}
    for ours, (file, theirs) in places.items():
        tensors[f"{ours}.weight"] = take(file, f"{theirs}.w", wanted[f"{ours}.weight"])
        tensors[f"{ours}.bias"] = take(file, f"{theirs}.b", wanted[f"{ours}.bias"])
    # Of a one-hot code, a 1x1 convolution gives the code's column and its bias.
    size, width = wanted["quantizer.codebook"]
    columns = take("decoder", f"{_CODES}.w", (width, size, 1, 1))
    bias = take("decoder", f"{_CODES}.b", (width,))
    problems += [f"{name} of {paths[file]} is no part of a dVAE" for file, name in sorted(left)]
    if problems:
        raise ModelFormatError(
            f"these are not encoder and decoder of one dVAE like OpenAI's ({len(problems)} "
            f"differences): {'; '.join(problems[:4])}"
        )
    tensors["quantizer.codebook"] = (rearrange(columns, "e k 1 1 -> k e") + bias).contiguous()
    return tensors


def _card(settings: ImportVae, vae: DiscreteVAE) -> str:
    files = "\n".join(
        f"| {kind} | {path.name}, SHA-256 {file_sha256(path)} |"
        for kind, path in (("encoder", settings.encoder), ("decoder", settings.decoder))
    )
    count = sum(parameter.numel() for parameter in vae.parameters())
    return f"""# A discrete VAE from elsewhere

Imported by `dalle import vae`; tokens and pictures are those of its origin, up to rounding.

| part | facts |
|---|---|
{files}
| dVAE | {count:,} parameters, stride {vae.config.stride}, {vae.config.codebook_size} codes |

OpenAI's files (github.com/openai/DALL-E) are under a modified MIT licence, which asks that their
use be made known. Whoever publishes a model with this dVAE has to pass that on.
"""
