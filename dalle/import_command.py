"""`dalle import vae`: a dVAE that others published as a folder of ours, with the same tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dalle.checkpoint import save_vae
from dalle.checksums import file_sha256
from dalle.config import ImportVae
from dalle.foreign_tensors import ForeignTensors
from dalle.openai_dvae import openai_dvae
from dalle.taming_vqgan import taming_vqgan
from dalle.weights import check_replaceable
from vae.model import DiscreteVAE

log = logging.getLogger(__name__)

_ORIGINS = {
    "dalle": "OpenAI's files (github.com/openai/DALL-E) are under a modified MIT licence, which "
    "asks that their use be made known.",
    "vqgan": "Weights of this shape come from several places: those of taming-transformers "
    "(github.com/CompVis/taming-transformers) are under the MIT licence, others under their own.",
}


def run(settings: ImportVae) -> int:
    """Read the files, write the folder; 0 when done.

    Raises:
        ModelFormatError: A file cannot be read, or is none of the kind.
        ValueError: Something other than a model stands where it shall be written.
        OSError: A file cannot be read or written.
    """
    check_replaceable(settings.out)
    files = [ForeignTensors(path) for path in settings.files]
    vae = taming_vqgan(*files) if settings.checkpoint is not None else openai_dvae(*files)
    save_vae(settings.out, vae, card=_card(files, vae))
    stride = vae.config.stride
    log.info(
        "%s holds a dVAE of stride %d and %d codes; `dalle tokenize --vae %s --image_px 256` comes "
        "next, for pictures of any size that %d divides",
        settings.out, stride, vae.config.codebook_size, settings.out, stride,
    )  # fmt: skip
    return 0


def _card(files: Sequence[ForeignTensors], vae: DiscreteVAE) -> str:
    rows = "\n".join(f"| {one.path.name} | SHA-256 {file_sha256(one.path)} |" for one in files)
    count = sum(parameter.numel() for parameter in vae.parameters())
    return f"""# A discrete VAE from elsewhere

Imported by `dalle import vae`; its tokens and pictures are those of its origin, up to rounding.

| part | facts |
|---|---|
{rows}
| dVAE | {count:,} parameters, stride {vae.config.stride}, {vae.config.codebook_size} codes |

{_ORIGINS[vae.config.family]} Whoever publishes a model with this dVAE has to pass that on.
"""
