"""Plots hold what they claim to show, and no label lies over another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dalle.errors import DalleError
from dalle.evaluate import plots
from dalle.evaluate.estimators import Curve, Rate, share
from dalle.evaluate.plots import draw_rankers, draw_rates, draw_temperatures, require_matplotlib
from dalle.evaluate.results import EnvelopePoint, HitAtK, curve_points

pytest.importorskip("matplotlib", reason="plots are drawn with matplotlib, extra `eval`")


def line(first: float, last: float, *, n: int = 8) -> tuple[HitAtK, ...]:
    rates = np.linspace(first, last, n)
    return curve_points(Curve(rates=rates, low=rates - 0.05, high=rates + 0.05))


def colours(path: Path) -> dict[str, np.ndarray]:
    """Where a PNG file has each colour of the palette, (x, y) as parts of its size, y upwards."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == plots.WIDTH_IN * plots.DPI, "twice 700 pixels"
        pixels = np.asarray(image.convert("RGB"))
    found = {}
    for name in ("BLACK", "BLUE", "ORANGE", "GREEN", "VERMILLION", "SKY"):
        rgb = tuple(bytes.fromhex(getattr(plots, name)[1:]))
        y, x = np.nonzero((pixels == rgb).all(axis=2))
        found[name] = np.stack([x / pixels.shape[1], 1 - y / pixels.shape[0]], axis=1)
    return found


def drawn(curves: Mapping[str, tuple[HitAtK, ...]], folder: Path) -> dict[str, np.ndarray]:
    draw_rankers(curves, folder / "plot.png")
    return colours(folder / "plot.png")


def test_each_ranker_has_its_colour_and_height(tmp_path: Path) -> None:
    curves = {"likelihood": line(0.2, 0.2), "clip": line(0.5, 0.5), "random": line(0.8, 0.8)}
    found = drawn(curves, tmp_path)
    low, high = found["BLUE"][:, 1].mean(), found["VERMILLION"][:, 1].mean()
    assert np.ptp(found["BLUE"][:, 1]) < 0.02, "a flat curve is flat"
    assert np.ptp(found["BLUE"][:, 0]) > 0.6, "and goes all the way"
    # The axes fill about four fifths of the height, so 0.3 of rate is about 0.25 of the picture.
    assert high - low == pytest.approx(0.25, abs=0.03)
    again = drawn({"clip": line(0.5, 0.5)}, tmp_path)
    assert len(again["VERMILLION"]) > 500, "the colour belongs to the ranker, not to its place"
    assert len(again["BLUE"]) == 0


def test_temperatures_are_told_apart_and_the_best_lies_below(tmp_path: Path) -> None:
    curves = {"0.5": line(0.3, 0.4), "0.7": line(0.2, 0.6), "1.0": line(0.1, 0.2)}
    best = [EnvelopePoint(k=k + 1, rate=0.9, temperature=0.7) for k in range(8)]
    for envelope, name in ((best, "with"), ([], "without")):
        draw_temperatures(curves, envelope, tmp_path / f"{name}.png")
        found = colours(tmp_path / f"{name}.png")
        assert all(len(found[name]) > 500 for name in ("BLUE", "ORANGE", "GREEN"))
    with_best, without = (
        np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")).astype(int)
        for name in ("with", "without")
    )
    changed = np.nonzero(with_best != without)
    assert (with_best[changed] < without[changed]).all(), "a grey band where nothing was"
    assert len(changed[0]) > 5000


def test_more_temperatures_than_colours_get_dashes(tmp_path: Path) -> None:
    flat = {str(number): line(number / 10, number / 10) for number in range(8)}
    draw_temperatures(flat, (), tmp_path / "plot.png")
    blue = colours(tmp_path / "plot.png")["BLUE"]  # of 0 and, dashed, of 6
    solid, dashed = blue[blue[:, 1] < 0.3], blue[blue[:, 1] > 0.3]
    assert 0.3 * len(solid) < len(dashed) < 0.9 * len(solid)


def test_bars_are_as_long_as_their_rates(tmp_path: Path) -> None:
    groups = {
        "By attribute": {"subject": share([True] * 5 + [False] * 15), "count": share([True] * 9)},
        "By kind": {"plain": Rate(rate=0.0, low=0.0, high=0.3, n=9)},
    }
    draw_rates(groups, tmp_path / "plot.png")
    sky = colours(tmp_path / "plot.png")["SKY"]
    lengths = {round(y, 3): np.ptp(sky[sky[:, 1] == y][:, 0]) for y in np.unique(sky[:, 1])}
    longest = max(lengths.values())
    assert 0.65 < longest < 0.8, "100 % goes all the way, with room for the numbers beside it"
    short = [length for length in lengths.values() if length < 0.9 * longest]
    assert np.median(short) == pytest.approx(longest / 4, rel=0.05), "25 % beside 100 %"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_labels_keep_their_distance_and_their_order(ends: list[float]) -> None:
    placed = plots._spread(ends)
    assert sorted(index for index, _ in placed) == list(range(len(ends)))
    middles = [middle for _, middle in placed]
    assert [ends[index] for index, _ in placed] == sorted(ends)
    assert all(np.diff(middles) >= plots.LABEL_GAP - 1e-9)
    assert middles[-1] <= 1
    assert middles[0] >= 0
    if len(ends) == 1:
        assert middles == ends


@pytest.mark.parametrize(
    ("n", "ticks"),
    [
        (1, [1]),
        (2, [1, 2]),
        (32, [1, 2, 4, 8, 16, 32]),
        (48, [1, 2, 4, 8, 16, 32, 48]),
        (40, [1, 2, 4, 8, 16, 40]),
    ],
)
def test_ticks_are_powers_of_two_and_the_last(n: int, ticks: list[int]) -> None:
    assert plots._ticks(n) == ticks


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    with pytest.raises(ValueError, match="curves of at least two points, got none"):
        draw_rankers({}, path)
    with pytest.raises(ValueError, match=r"at least two points, got {'0.7': 1}"):
        draw_temperatures({"0.7": line(0, 0, n=1)}, (), path)
    cases: list[dict[str, dict[str, Rate]]] = [{}, {"By kind": {}}]
    for groups in cases:
        with pytest.raises(ValueError, match="at least one rate in each group, got none"):
            draw_rates(groups, path)
    assert not path.exists()


def test_drawing_leaves_no_global_state(tmp_path: Path) -> None:
    """A page or notebook that draws with pyplot must not find our figures among its own."""
    program = (
        "import sys; from pathlib import Path; from dalle.evaluate.estimators import share\n"
        "from dalle.evaluate.plots import draw_rates\n"
        "assert 'matplotlib' not in sys.modules, 'imported before it is needed'\n"
        f"draw_rates({{'a': {{'b': share([True])}}}}, Path({str(tmp_path / 'plot.png')!r}))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "False\n"


def test_without_matplotlib_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DalleError, match=r"plots need matplotlib; pip install 'dalle-studio\[eval"):
        require_matplotlib()
    monkeypatch.undo()
    require_matplotlib()
