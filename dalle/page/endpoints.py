"""The page for programs: four named endpoints over HTTP, from Python, and as MCP tools.

Their names, parameters and defaults are public; a test holds a snapshot of them.
"""

from __future__ import annotations

import contextlib
import inspect
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr
from gradio.components import Component
from gradio.data_classes import FileData
from gradio.events import api
from gradio.utils import get_function_description
from PIL import Image

from dalle.page.admission import Ticket
from dalle.page.asking import client_of, has_left
from dalle.page.exports import save_pictures
from dalle.page.faults import PageFault
from dalle.page.received import is_received
from dalle.page.service import LEFT, Service, Task
from dalle.page.settings import check_caption
from dalle.page.widgets import check
from dalle.transforms import transform_caption

if TYPE_CHECKING:
    from dalle.results import CaptionResult

NAMES = ("generate", "complete", "transform", "rank")
TRANSFORM_ROWS = 0.5


class Endpoints:
    """The functions behind the endpoints.

    Args:
        service: What draws.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def add(self, blocks: gr.Blocks) -> None:
        """Offer them; call within the page's `with`."""
        for name in NAMES:
            function = getattr(self, name)
            api(
                function,
                api_name=function.__name__,
                api_description=get_function_description(function)[0],
                concurrency_limit=None,
            )
            _label(blocks, function)

    def generate(
        self,
        request: gr.Request,
        caption: str,
        candidates: int = 16,
        keep: int | None = None,
        seed: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float | None = None,
        ranker: Literal["clip", "likelihood", "none"] | None = None,
    ) -> dict[str, Any]:
        """Draw pictures for a caption and return the best, each with its score, best first.

        Args:
            caption: What to draw, such as "a fox on a blue background".
            candidates: Pictures drawn, of which the best are returned.
            keep: Best pictures returned, at most as many as candidates; null takes up to 4.
            seed: The same seed and settings draw the same pictures.
            temperature: 0 to 100, lower is safer; null takes the model's own.
            top_k: Keep only so many likeliest tokens, 0 keeps all; null takes the model's own.
            top_p: Keep the likeliest tokens of this mass, over 0 to 1; null takes the model's own.
            guidance_scale: How closely to follow the caption, 1 is off; null takes the model's own.
            ranker: What orders the candidates; null takes CLIP where there is one.

        Returns:
            The caption, the pictures with file, score, ranker, seed and index, a notice or null.
        """
        settings = self._settings(
            caption=caption, candidates=candidates, keep=keep, seed=seed, temperature=temperature,
            top_k=top_k, top_p=top_p, guidance_scale=guidance_scale, ranker=ranker,
        )  # fmt: skip
        return self._answer(Task(settings=settings), client_of(request))

    def complete(
        self,
        request: gr.Request,
        picture: FileData,
        caption: str | None = None,
        keep_rows: float | None = None,
        layout: Literal["top-half", "place-on-top"] = "top-half",
        crop: Literal["center", "top", "pad"] = "center",
        candidates: int = 16,
        keep: int | None = None,
        seed: int = 0,
        region: list[float] | None = None,
    ) -> dict[str, Any]:
        """Keep a part of a picture and draw the rest, with a caption or freely without one.

        Args:
            picture: PNG, JPEG or WebP file, uploaded.
            caption: What the whole picture should show; null draws freely.
            keep_rows: Kept at the top: a part of the height, or token rows; null is half.
            layout: Keep the upper rows, or fit the whole picture into them.
            crop: How it gets the model's proportions, with the layout top-half.
            candidates: Pictures drawn, of which the best are returned.
            keep: Best pictures returned, at most as many as candidates; null takes up to 4.
            seed: The same seed and settings draw the same pictures.
            region: Left, top, right, bottom of what is drawn, 0 to 1; null is all below.

        Returns:
            As generate does.
        """
        settings = self._settings(
            caption=caption, image=_name(picture), keep_rows=keep_rows, layout=layout, crop=crop,
            candidates=candidates, keep=keep, seed=seed, region=region,
        )  # fmt: skip
        with self._service.admission.enter(client_of(request)) as ticket:
            image = self._read(picture, ticket)
            return self._answer(Task(settings=settings, picture=image), ticket)

    def transform(
        self,
        request: gr.Request,
        picture: FileData,
        to: str = "sketch",
        subject: str | None = None,
        candidates: int = 16,
        keep: int | None = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Redraw a picture in another look below itself: a sketch, upside-down, red, and so on.

        Args:
            picture: PNG, JPEG or WebP file, uploaded.
            to: Name of the transform; an unknown one is answered with those there are.
            subject: What the picture shows, such as fox; null lets CLIP guess.
            candidates: Pictures drawn, of which the best are returned.
            keep: Best pictures returned, at most as many as candidates; null takes up to 4.
            seed: The same seed and settings draw the same pictures.

        Returns:
            As generate does.
        """
        try:
            caption = transform_caption(to, subject)
        except (ValueError, TypeError) as err:
            raise PageFault(str(err)) from err
        settings = self._settings(
            caption=caption, image=_name(picture), keep_rows=TRANSFORM_ROWS,
            layout="place-on-top", candidates=candidates, keep=keep, seed=seed,
        )  # fmt: skip
        with self._service.admission.enter(client_of(request)) as ticket:
            image = self._read(picture, ticket)
            if subject is None and (guess := self._guess(image, ticket)):
                settings = replace(settings, caption=transform_caption(to, guess))
            return self._answer(Task(settings=settings, picture=image), ticket)

    def rank(
        self, request: gr.Request, pictures: list[FileData], caption: str
    ) -> list[dict[str, Any]]:
        """Order given pictures by how well a CLIP finds that they show a caption, best first.

        Args:
            pictures: PNG, JPEG or WebP files, uploaded.
            caption: What they should show.

        Returns:
            For each picture its index in the request and its score, the best first.
        """
        limits = self._service.limits
        text = check_caption(caption, limits)
        if not isinstance(pictures, list) or not 1 <= len(pictures) <= limits.candidates:
            raise PageFault(f"pictures must be a list of 1 to {limits.candidates} uploaded files")
        with self._service.admission.enter(client_of(request)) as ticket:
            images = [self._read(picture, ticket) for picture in pictures]
            with self._service.turn(ticket, has_left=has_left) as model:
                clip = model.clip
                if clip is None:
                    raise PageFault("this model has no CLIP to rank by")
                scores = clip.scores(text, images)
        order = sorted(range(len(images)), key=lambda index: -scores[index])
        return [{"index": index, "score": scores[index]} for index in order]

    # -------------------------------------------------------------------------------------- parts

    def _settings(self, **asked: Any) -> Any:
        return check(self._service.facts, self._service.limits, asked)

    def _read(self, picture: object, ticket: Ticket) -> Image.Image:
        """An uploaded picture, for a job that is let in.

        Raises:
            PageFault: This server has not received it, it cannot be read, or the caller has left.
        """
        if has_left():
            raise PageFault(LEFT)
        path = picture.get("path") if isinstance(picture, dict) else None
        if not isinstance(path, str) or not is_received(path):
            raise PageFault("a picture must be an uploaded file; upload it first")
        with ticket.aside():
            return self._service.uploads.read(path)

    def _guess(self, image: Image.Image, ticket: Ticket) -> str | None:
        """What CLIP takes a picture for; None without a CLIP."""
        from dalle.transform_command import likeliest_subject

        with self._service.turn(ticket, has_left=has_left) as model:
            return None if model.clip is None else likeliest_subject(model.clip, image)

    def _answer(self, task: Task, client: str | Ticket) -> dict[str, Any]:
        """Draw one task to its end and write its pictures; only as long as somebody waits for them.

        Raises:
            PageFault: It cannot be drawn now, no picture was complete, or the caller has left.
        """
        steps = self._service.draw([task], client=client, key=f"api {uuid.uuid4()}")
        last = None
        with contextlib.closing(steps):  # type: ignore[type-var]
            for step in steps:
                if has_left():
                    raise PageFault(LEFT)
                last = step
        assert last is not None, "a job ends with a step"
        if last.result is None:
            raise PageFault(f"{last.reason} No picture was complete.")
        return self._written(last.result, task.settings.keep, stopped=last.reason)

    def _written(self, result: CaptionResult, keep: int, *, stopped: str) -> dict[str, Any]:
        images = result.images[:keep]
        files: Sequence[Path] = save_pictures(images, self._service.folder, self._service.limits)
        notices = [notice for notice in (stopped, result.notice) if notice]
        return {
            "caption": result.caption,
            "images": [
                {
                    "file": FileData(
                        path=str(file), orig_name=file.name, mime_type="image/png"
                    ).model_dump(),
                    "score": image.score,
                    "ranker": image.ranker,
                    "seed": image.recipe.seed,
                    "index": image.recipe.index,
                    "log_likelihood": image.log_likelihood,
                }
                for image, file in zip(images, files, strict=True)
            ],
            "notice": "; ".join(notices) or None,
        }


def parameters() -> dict[str, dict[str, bool]]:
    """Of each endpoint the names of what it takes, and whether it must be given."""
    return {
        name: {
            one.name: one.default is one.empty
            for one in list(inspect.signature(getattr(Endpoints, name)).parameters.values())[2:]
        }
        for name in NAMES
    }


def _name(picture: object) -> str:
    """The name that an uploaded file had, for settings that name it; never a path."""
    name = picture.get("orig_name") if isinstance(picture, dict) else None
    return Path(name).name if isinstance(name, str) and Path(name).name else "picture.png"


def _label(blocks: gr.Blocks, function: Callable[..., Any]) -> None:
    """Say in the API's description what each parameter is, where Gradio would number them."""
    _, notes, returns = get_function_description(function)
    names = [name for name in notes if name != "request"]
    (event,) = (event for event in blocks.fns.values() if event.api_name == function.__name__)
    texts = [notes[name] for name in names] + [" ".join(returns)]
    for text, component in zip(texts, (*event.inputs, *event.outputs), strict=True):
        assert isinstance(component, Component), "endpoints have values, no layout"
        component.label = text
