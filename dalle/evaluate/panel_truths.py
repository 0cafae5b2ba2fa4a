"""The true pictures of two-panel cases, and how near others come to them.

Axes: s cases, b pictures, h w grid rows and columns, y x pixel rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dalle.checkpoint import ModelParts
from dalle.data.order import in_groups
from dalle.evaluate.closeness import edge_distance, pixel_distance, token_agreement
from dalle.evaluate.panel_judging import JudgedPanel, PanelJudges
from dalle.evaluate.panels import PanelCase
from dalle.evaluate.transforms import MEASURES, OTHER_SUBJECT, RECONSTRUCTION, TRUTH
from vae.pixels import to_image_u8, to_pixels

AT_ONCE = 8
"""Pictures that a process judges at a time."""


@dataclass(frozen=True, kw_only=True)
class PanelTruth:
    """What a case's bottom half should be."""

    image_u8: np.ndarray
    """The whole picture, shape (y, x, 3), uint8."""
    tokens: np.ndarray
    """Its tokens, shape (h, w)."""
    blank: np.ndarray
    """Those of the given picture, whose bottom is paper, shape (h, w)."""

    def closeness(self, images_u8: np.ndarray, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """How near the bottoms of pictures come, by measure, shape (b) each.

        Args:
            images_u8: Whole pictures, shape (b, y, x, 3), uint8.
            tokens: Theirs, shape (b, h, w).
        """
        y, h = self.image_u8.shape[0] // 2, self.tokens.shape[0] // 2
        return {
            "pixel distance": pixel_distance(images_u8[:, y:], self.image_u8[y:]),
            "edge distance": edge_distance(images_u8[:, y:], self.image_u8[y:]),
            "token agreement": token_agreement(tokens[:, h:], self.tokens[h:], self.blank[h:]),
        }


class PanelTruths:
    """The true pictures of all cases.

    Args:
        parts: The model; its dVAE makes the tokens.
        cases: What is true.
        judges: Judge the true pictures themselves.
    """

    def __init__(self, parts: ModelParts, cases: Sequence[PanelCase], judges: PanelJudges) -> None:
        self._looks = [case.look for case in cases]
        self._images_u8 = np.stack([np.asarray(case.truth) for case in cases])  # s y x 3
        self._tokens, self._rebuilt_u8 = _through_vae(parts, self._images_u8)
        self._blank, _ = _through_vae(parts, np.stack([np.asarray(case.given) for case in cases]))
        self.judged = {
            name: np.array(
                [
                    verdict.hit
                    for found in judges.verdicts(in_groups(_judged(cases, images), AT_ONCE))
                    for verdict in found
                ]
            )
            for name, images in ((TRUTH, self._images_u8), (RECONSTRUCTION, self._rebuilt_u8))
        }
        """Which true pictures, and which of their reconstructions, the judge accepts, (s) each."""

    def of(self, number: int) -> PanelTruth:
        """The truth of case `number`."""
        return PanelTruth(
            image_u8=self._images_u8[number],
            tokens=self._tokens[number],
            blank=self._blank[number],
        )

    def yardsticks(self) -> dict[str, dict[str, np.ndarray]]:
        """How near reconstructions and other subjects come, as `Redrawn` holds it."""
        found: dict[str, dict[str, list[float]]] = {
            measure: {RECONSTRUCTION: [], OTHER_SUBJECT: []} for measure in MEASURES
        }
        for number in range(len(self._looks)):
            truth, other = self.of(number), self._other(number)
            rebuilt = truth.closeness(self._rebuilt_u8[[number]], self._tokens[[number]])
            others = truth.closeness(self._images_u8[[other]], self._tokens[[other]])
            for measure in MEASURES:
                found[measure][RECONSTRUCTION].append(float(rebuilt[measure][0]))
                found[measure][OTHER_SUBJECT].append(
                    float("nan") if other == number else float(others[measure][0])
                )
        return {
            measure: {name: np.array(values) for name, values in both.items()}
            for measure, both in found.items()
        }

    def _other(self, number: int) -> int:
        """The next case of the same look, from the last on to the first; itself if it is alone."""
        same = [index for index, look in enumerate(self._looks) if look == self._looks[number]]
        return same[(same.index(number) + 1) % len(same)]


def _judged(cases: Sequence[PanelCase], images_u8: np.ndarray) -> Iterator[JudgedPanel]:
    """What there is to judge of a picture (y, x, 3) for each case."""
    for case, image_u8 in zip(cases, images_u8, strict=True):
        yield JudgedPanel(image_u8=image_u8, number=case.number, look=case.look)


@torch.inference_mode()
def _through_vae(parts: ModelParts, images_u8: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of pictures (s, y, x, 3), shape (s, h, w), and the pictures that they decode to."""
    device = next(parts.vae.parameters()).device
    tokens, rebuilt = [], []
    for image_u8 in images_u8:
        pixels = to_pixels(torch.from_numpy(image_u8[None]).to(device))
        tokens.append(parts.vae.encode(pixels))
        rebuilt.append(to_image_u8(parts.vae.decode(tokens[-1])))
    return torch.cat(tokens).cpu().numpy(), np.concatenate(rebuilt)
