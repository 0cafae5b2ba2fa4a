"""`dalle transform`: a picture on top, redrawn below in another look."""

from __future__ import annotations

import logging

import torch
from PIL import Image

from dalle.clip import ClipScorer
from dalle.config import Generate, Transform
from dalle.data.emoji.names import with_article
from dalle.data.emoji.subjects import core_names
from dalle.data.images import centre_crop
from dalle.errors import DalleError
from dalle.generate_command import run as generate
from dalle.given_picture import read_picture
from dalle.pipeline import TextToImage
from dalle.transforms import TRANSFORMS, is_zero_shot, transform_caption

log = logging.getLogger(__name__)


def run(settings: Transform) -> int:
    """Word the captions, then draw as `dalle generate` does; 0 when every picture is written.

    Raises:
        ModelFormatError: The model or its CLIP cannot be loaded.
        DataError: The picture cannot be read.
        DalleError: A picture cannot be written.
        ValueError: A setting is out of range.
    """
    subject, model = settings.subject, None
    if subject is None:
        picture = read_picture(settings.image)
        model = TextToImage.from_pretrained(
            settings.model, clip=settings.clip, device=settings.device
        )
        subject = _guess(model, picture)
    names = [one.name for one in TRANSFORMS] if settings.to == "all" else [settings.to]
    for name in names:
        if is_zero_shot(name):
            log.info("training never showed %r as a transform of a picture above it", name)
    return generate(
        Generate(
            captions=tuple(transform_caption(name, subject) for name in names),
            image=settings.image,
            prompt_layout="place-on-top",
            model=settings.model,
            candidates=settings.candidates,
            keep=settings.keep or (1 if settings.to == "all" else None),
            seed=settings.seed,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            guidance_scale=settings.guidance_scale,
            out=settings.out,
            clip=settings.clip,
            json=settings.json,
            device=settings.device,
        ),
        model,
    )


def _guess(model: TextToImage, picture: Image.Image) -> str | None:
    """What CLIP takes the picture for, among the subjects of emoji scenes; None without a CLIP."""
    try:
        clip = model.clip
    except DalleError as err:
        log.warning("what the picture shows is not known: %s; name it with --subject", err)
        return None
    if clip is None:
        log.info("there is no CLIP to tell what the picture shows; name it with --subject")
        return None
    name = likeliest_subject(clip, picture)
    log.info("taken for %s; --subject says otherwise", with_article(name))
    return name


def likeliest_subject(clip: ClipScorer, picture: Image.Image) -> str:
    """The subject of the core list whose plain caption fits `picture`, RGB, best."""
    names = core_names()
    captions = [with_article(name) for name in names]
    square = centre_crop(picture, (min(picture.size), min(picture.size)))
    cosines = clip.text_features(captions) @ clip.image_features([square])[0]
    return names[int(torch.argmax(cosines))]
