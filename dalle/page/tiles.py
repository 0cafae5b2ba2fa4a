"""Pictures on the page, as HTML: the stage of candidates, the chosen one, the history.

Every text that a person wrote passes through `html.escape`, so that it is shown and never obeyed.
Pictures travel inside the page as data URLs, a finished one with its settings in it, so that
"save picture as" and dragging it onto the page keep them.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Literal

from PIL import Image

from dalle.labels import NO_CAPTION, file_name
from dalle.page.drawn import Collection, Drawn, History
from dalle.page.progress import Progress

if TYPE_CHECKING:
    from dalle.page.explore import Exploration
    from dalle.picture import GeneratedImage

PREVIEW_PX = 256
"""Longest side of an unfinished picture on its way to the browser."""
RANKERS = {"clip": "CLIP", "likelihood": "Likelihood", "none": "As drawn"}
MAX_NOTICES = 3
"""Notices of a collection's pictures that its status line has room for."""


# ---------------------------------------------------------------------------------------- the stage


BLANK_TILE = '<span class="hole"></span><p></p>'


def blank_stage(count: int) -> str:
    """The stage before anything is drawn: as many empty tiles as pictures will be kept."""
    return _stage([BLANK_TILE] * count, label="No pictures yet", kind="div")


def drawing_stage(step: Progress) -> str:
    """All candidates as far as they are drawn."""
    tiles = []
    for number, preview in enumerate(step.previews):
        rows = step.rows if number < step.first_candidate else step.rows_done
        tile = _growing(preview, rows, step.rows, alt=f"Candidate {number}")
        tiles.append(f"{tile}<p>No. {number}</p>")
    return _stage(tiles, label="Candidates being drawn", kind="ul")


def collecting_stage(done: Sequence[GeneratedImage], step: Progress, plan: Collection) -> str:
    """The finished pictures of a collection, the first candidate of the next, room for the rest."""
    tiles = []
    for place, label in enumerate(plan.labels):
        if place < len(done):
            picture = f'<img src="{preview_url(done[place].image)}" alt="{escape(label)}">'
        else:
            begun = step.preview if place == len(done) else None
            picture = _growing(begun, step.rows_done, step.rows, alt="The next picture")
        tiles.append(f"{picture}<p><span>{escape(label)}</span></p>")
    return _stage(tiles, columns=plan.columns, label="Pictures", kind="ol", fixed=False)


def _growing(preview: Image.Image | None, rows_done: int, rows: int, *, alt: str) -> str:
    """The drawn rows of a picture, above the room for those to come."""
    if preview is None or not rows_done:
        return '<span class="hole"></span>'
    share = rows_done / rows
    drawn = preview.crop((0, 0, preview.width, round(preview.height * share)))
    return (
        f'<span class="hole"><img src="{preview_url(drawn)}" style="height:{100 * share:.4g}%" '
        f'alt="{alt}, {rows_done} of {rows} rows drawn"></span>'
    )


def finished_stage(drawn: Drawn, picked: int, *, everything: bool) -> str:
    """The pictures of a result, each a button that chooses it."""
    images = drawn.images if everything else drawn.best
    scores = [image.score for image in drawn.images if image.score is not None]
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    tiles = []
    for place, image in enumerate(images):
        if drawn.collection is not None:
            note = f"<p><span>{escape(drawn.collection.labels[place])}</span></p>"
        else:
            spread = high - low
            share = (image.score - low) / spread if image.score is not None and spread else 0.0
            bar = f'<i class="bar" style="--share:{share:.3f}"></i>'
            note = f"<p><b>{place + 1}</b> {score_text(image)}{bar}</p>"
        alt = escape(describe(drawn, place), quote=True)
        tiles.append(
            f'<button type="button" class="pick" data-pick="{place}" '
            f'aria-pressed="{"true" if place == picked else "false"}">'
            f'<img src="{picture_url(image)}" alt="{alt}"></button>{note}'
        )
    if drawn.collection is not None:
        return _stage(
            tiles, columns=drawn.collection.columns, label="Pictures", kind="ol", fixed=False
        )
    return _stage(tiles, label="Pictures, best first", kind="ol")


def _stage(
    tiles: Sequence[str],
    *,
    label: str,
    kind: Literal["div", "ul", "ol"],
    columns: int | None = None,
    fixed: bool = True,
) -> str:
    """Tiles in columns; `fixed` keeps the same height however many of them there are.

    Empty tiles, unfinished and ranked pictures are elements of different kinds, so that the browser
    replaces one by the other rather than moves them about.
    """
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    item = "div" if kind == "div" else "li"
    items = "".join(f'<{item} class="tile">{tile}</{item}>' for tile in tiles)
    return (
        f'<div class="stage{" fixed" if fixed else ""}" style="--columns:{columns}">'
        f'<{kind} class="tiles" aria-label="{label}">{items}</{kind}></div>'
    )


# ------------------------------------------------------------------------------- what is happening


def status(text: str, *, part: float | None = None, detail: str = "", tone: str = "") -> str:
    """One line that says what goes on, with a bar if there is something to wait for.

    Args:
        text: For the person; shown as text.
        part: How much is done, 0 to 1; None for no bar.
        detail: More, in a quieter voice; not read aloud as it changes.
        tone: `fault` or `notice`, which add a word and a sign.
    """
    sign = {"fault": "<b>Not done.</b> ", "notice": "<b>Note.</b> "}.get(tone, "")
    bar = ""
    if part is not None:
        bar = f'<progress max="100" value="{100 * part:.0f}" aria-label="Drawn so far"></progress>'
    return (
        f'<div class="status {tone}"><span role="status" aria-live="polite">{sign}{escape(text)}'
        f'</span><span class="detail">{escape(detail)}</span>{bar or "<i></i>"}</div>'
    )


def progress_status(step: Progress, *, of: int = 1) -> str:
    """The status line of a job that is under way."""
    match step.state:
        case "waiting":
            jobs = "1 request" if step.ahead == 1 else f"{step.ahead} requests"
            return status(f"Waiting: {jobs} before yours", part=0)
        case "loading":
            return status("The model is being loaded, a few seconds more", part=0)
        case _:
            which = f"Drawing caption {step.task + 1} of {of}" if of > 1 else "Drawing"
            detail = f"row {step.rows_done} of {step.rows}"
            if step.seconds_left is not None:
                detail += f" · {time_text(step.seconds_left)} left"
            return status(which, part=step.part, detail=detail)


def outcome_status(last: Progress, drawn: Drawn, *, of: int, notices: Mapping[int, str]) -> str:
    """The status line of a job that has ended with pictures, with the `notices` of its tasks."""
    count = len(drawn.images)
    took = f"{last.seconds:.1f} s"
    if last.state == "stopped":
        asked = of if drawn.is_collection else drawn.settings[0].candidates
        text = f"{last.reason} {count} of {asked} pictures were complete and are kept."
    elif drawn.is_collection:
        text = f"{count} pictures drawn in {took}."
    else:
        ranker = drawn.images[0].ranker
        order = "as drawn" if ranker == "none" else f"best first by {RANKERS[ranker]}"
        text = f"{count} candidates drawn in {took}, {order}."
    for task, notice in itertools.islice(notices.items(), MAX_NOTICES):
        text += f" Picture {task + 1}: {notice}." if drawn.is_collection else f" {notice}."
    if len(notices) > MAX_NOTICES:
        text += f" And {len(notices) - MAX_NOTICES} more like these."
    is_plain = last.state == "done" and not notices
    return status(text, tone="" if is_plain else "notice")


def time_text(seconds: float) -> str:
    """A time to wait, for people: "about 5 s"."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"about {math.ceil(seconds)} s"
    return f"about {math.ceil(seconds / 60)} min"


# ----------------------------------------------------------------------------------- chosen picture


def chosen(drawn: Drawn | None, picked: int) -> str:
    """The chosen picture, enlarged, with what is known of it."""
    if drawn is None or not 0 <= picked < len(drawn.images):
        return (
            '<section class="chosen empty" aria-label="Chosen picture"><span class="hole"></span>'
            "<div><h2>No picture yet</h2><p>Draw something, then choose a picture to see its score "
            "and seed, to download it, or to go on from it.</p></div></section>"
        )
    image = drawn.images[picked]
    url, alt = picture_url(image), escape(describe(drawn, picked), quote=True)
    rows = {
        "Rank": f"{picked + 1} of {len(drawn.images)}",
        "Score": score_text(image),
        "Likelihood": f"{image.log_likelihood:.2f} nats a token",
        "Seed": f"{image.recipe.seed}, no. {image.recipe.index}",
    }
    if drawn.is_collection:
        del rows["Rank"]
    facts = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows.items())
    return (
        f'<section class="chosen" aria-label="Chosen picture"><img src="{url}" alt="{alt}">'
        f"<div><h2>{escape(caption_text(image))}</h2><dl>{facts}</dl>"
        f'<a class="save" href="{url}" download="{file_name(image.recipe)}">Download PNG</a>'
        "</div></section>"
    )


def describe(drawn: Drawn, place: int) -> str:
    """A picture in words, for those who do not see it."""
    image = drawn.images[place]
    which = "" if drawn.is_collection else f"picture {place + 1} of {len(drawn.images)}, "
    return (
        f"{caption_text(image)}: {which}{score_text(image)}, "
        f"seed {image.recipe.seed}, candidate {image.recipe.index}"
    )


def caption_text(image: GeneratedImage) -> str:
    """The caption as people read it."""
    return image.recipe.caption or NO_CAPTION


def score_text(image: GeneratedImage) -> str:
    """A score and what it is."""
    name = RANKERS.get(image.ranker, image.ranker)
    return name if image.score is None else f"{name} {image.score:.3f}"


# ------------------------------------------------------------------------------------------ earlier


def history_strip(history: History, current: Drawn | None) -> str:
    """Earlier results, newest first; each is a button that brings it back."""
    if not history:
        return (
            '<nav class="history" aria-label="Earlier pictures"><p class="quiet">'
            "What you draw appears here for as long as this page is open.</p></nav>"
        )
    cards = []
    for place, drawn in enumerate(history):
        best, caption = drawn.images[0], escape(drawn.title)
        mark = ' aria-current="true"' if drawn is current else ""
        cards.append(
            f'<li><button type="button" data-restore="{place}"{mark}>'
            f'<img src="{preview_url(best.image)}" alt=""><span>{caption}</span></button></li>'
        )
    return (
        '<nav class="history" aria-label="Earlier pictures"><h2>Earlier</h2><ol>'
        f"{''.join(cards)}</ol></nav>"
    )


# ---------------------------------------------------------------------------------------- exploring


def exploration(found: Exploration, codebook_size: int) -> str:
    """A picture, its tokens and what the model makes of them, side by side."""
    panels = [
        (found.picture, "The picture, cut to the model's size", "Picture"),
        (found.map, "Map of the picture's tokens, a colour for each code", "Tokens"),
        (found.reconstruction, "The picture drawn again from its tokens", "Reconstruction"),
    ]
    figures = "".join(
        f'<figure><img src="{png_url(image)}" alt="{alt}"><figcaption>{name}</figcaption></figure>'
        for image, alt, name in panels
    )
    h, w = found.token_grid.shape
    codes = "".join(
        f'<li><img src="{preview_url(use.swatch)}" alt="What the model draws from code {use.code} '
        f'alone"><i style="background:rgb{use.colour}"></i><b>{use.code}</b>'
        f"<span>{use.count} ×</span></li>"
        for use in found.codes
    )
    return (
        f'<section class="explore"><div class="panels">{figures}</div><p>{h} × {w} tokens, '
        f"{found.distinct} different codes of {codebook_size:,}. Used most:</p>"
        f'<ol class="codes">{codes}</ol></section>'
    )


def framed(image: Image.Image, alt: str, note: str = "") -> str:
    """One picture by itself, with a line below it."""
    return (
        f'<figure class="framed"><img src="{png_url(image)}" alt="{escape(alt, quote=True)}">'
        f"<figcaption>{escape(note)}</figcaption></figure>"
    )


# --------------------------------------------------------------------------------------- data URLs


def picture_url(image: GeneratedImage) -> str:
    """A finished picture with its settings in it."""
    return _url(image.png(), "png")


def png_url(image: Image.Image) -> str:
    """A picture, exactly."""
    return _url(_encoded(image, "PNG"), "png")


def preview_url(image: Image.Image) -> str:
    """A picture that is looked at for a moment, in few bytes."""
    if max(image.size) > PREVIEW_PX:
        image = image.copy()
        image.thumbnail((PREVIEW_PX, PREVIEW_PX))
    return _url(_encoded(image, "WEBP"), "webp")


def _encoded(image: Image.Image, kind: str) -> bytes:
    written = io.BytesIO()
    # Few pixels are sent, so fine edges are worth their bytes; method 0 is the fastest.
    image.save(written, kind, **({"quality": 90, "method": 0} if kind == "WEBP" else {}))
    return written.getvalue()


def _url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
