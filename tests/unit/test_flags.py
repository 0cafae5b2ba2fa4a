"""Settings from files and flags: what is read, printed and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalle import flags
from dalle.config import OptimConfig, TrainTransformer
from dalle.yaml_file import dump_yaml, read_yaml
from tests.unit.carts import Cart, Engine, error, parse


def test_defaults_are_those_of_the_dataclasses() -> None:
    assert parse("--out", "x") == Cart(out=Path("x"))
    assert parse("--out", "x").engine.power == 9.0  # the section's factory, not Engine's own 1.5


def test_flags_of_every_kind() -> None:
    cart = parse(
        "--out=a b/c", "--label", "123", "--wheels", "6", "--roof", "--engine.power", "1e-4",
        "--engine.fuel", "wood", "--engine.cylinders", "3", "--spare.power", "2",
    )  # fmt: skip
    assert cart == Cart(
        out=Path("a b/c"),
        label="123",
        wheels=6,
        roof=True,
        engine=Engine(power=1e-4, fuel="wood", cylinders=3),
        spare=Engine(power=2.0),
    )


def test_a_true_false_flag_takes_a_value_or_none() -> None:
    assert parse("--out", "x", "--roof").roof is True
    assert parse("--out", "x", "--roof", "false").roof is False
    assert parse("--out", "x", "--roof=false").roof is False
    assert parse("--out", "x", "--roof", "--wheels", "3") == Cart(
        out=Path("x"), roof=True, wheels=3
    )
    assert parse("--out", "x", "--roof", "falsehood").names == ("falsehood",)


def test_truth_values_are_spelt_as_in_yaml() -> None:
    """Bug: `--compile False` compiled, and drew a caption "False" as well."""
    for word, value in (("True", True), ("FALSE", False)):
        found = parse("--out", "x", "--roof", word, "fox")
        assert (found.roof, found.names) == (value, ("fox",))


def test_a_path_may_begin_at_home(cart_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: `--out=~/runs`, which no shell expands, made a folder called ~."""
    monkeypatch.setenv("HOME", "/home/me")
    assert parse("--out=~/runs").out == Path("/home/me/runs")
    cart_file.write_text("out: ~/runs\n")
    assert parse("--config", str(cart_file)).out == Path("/home/me/runs")


def test_dashes_and_underscores_mean_the_same() -> None:
    run = flags.parse(
        TrainTransformer,
        ["--out", "x", "--tokens", "y", "--text-len", "8", "--optim.weight-decay", "0"],
        prog="dalle train transformer",
    )
    assert (run.text_len, run.optim.weight_decay) == (8, 0.0)


def test_words_without_a_flag_stay_as_they_were_typed() -> None:
    """YAML would have read these as a number, null, a list, a mapping and a comment."""
    typed = ("123", "null", "[a]", "a: b", "# c", "yes", "1e-4", " ", "")
    assert parse("--out", "x", *typed).names == typed
    assert parse("--out", "x", "--", "--roof", "-v").names == ("--roof", "-v")


def test_numbers_below_zero_are_values_not_flags() -> None:
    assert parse("--out", "x", "--wheels", "-3").wheels == -3


def test_flags_override_files_wherever_they_stand(cart_file: Path) -> None:
    """jsonargparse alone lets a --config that stands last undo the flags before it."""
    cart_file.write_text("out: from-file\nwheels: 8\nengine:\n  power: 2\n  fuel: wood\n")
    cart = parse("--engine.power", "5", "--config", str(cart_file), "--out", "from-flag")
    assert cart == Cart(out=Path("from-flag"), wheels=8, engine=Engine(power=5.0, fuel="wood"))


def test_a_later_file_overrides_an_earlier_one(cart_file: Path, tmp_path: Path) -> None:
    cart_file.write_text("out: x\nwheels: 8\nroof: true\n")
    second = tmp_path / "second.yaml"
    second.write_text("wheels: 2\n")
    cart = parse("--config", str(cart_file), f"--config={second}")
    assert cart == Cart(out=Path("x"), wheels=2, roof=True)


def test_a_wrong_value_in_a_file_is_not_hidden_by_a_flag(cart_file: Path) -> None:
    cart_file.write_text("wheels: many\n")
    message = error("--config", str(cart_file), "--wheels", "4")
    assert message == f"{cart_file}: wheels must be a whole number, got 'many'"


def test_relative_paths_stay_relative_to_where_the_command_runs(cart_file: Path) -> None:
    cart_file.write_text("out: runs/one\n")
    assert parse("--config", str(cart_file)).out == Path("runs/one")


def test_a_section_whose_lines_are_all_commented_out_keeps_its_defaults(cart_file: Path) -> None:
    cart_file.write_text("out: x\nengine:\n#  power: 3\n")
    assert parse("--config", str(cart_file)) == Cart(out=Path("x"))


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", ".0001", "+1e-4"])
def test_scientific_notation_in_files_is_a_number(cart_file: Path, text: str) -> None:
    """PyYAML follows YAML 1.1, in which 1e-4 is text."""
    cart_file.write_text(f"out: x\nengine: {{power: {text}}}\n")
    assert parse("--config", str(cart_file)).engine.power == 0.0001


def test_files_follow_yaml_1_2(cart_file: Path) -> None:
    cart_file.write_text("names: [no, on, yes, 1:30, 2026-01-01, 0o7x, off]\nwheels: 010\nout: x\n")
    cart = parse("--config", str(cart_file))
    assert cart.names == ("no", "on", "yes", "1:30", "2026-01-01", "0o7x", "off")
    assert cart.wheels == 10  # eight in YAML 1.1


def test_files_may_share_parts(cart_file: Path) -> None:
    cart_file.write_text("out: x\nengine: &e {power: 3}\nspare: {<<: *e, fuel: wood}\n")
    assert parse("--config", str(cart_file)).spare == Engine(power=3.0, fuel="wood")


# -------------------------------------------------------------------------------- printing, writing


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_shows_notes_defaults_and_what_is_required(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = printed(capsys, "--help")
    assert text.startswith("usage: dalle cart NAMES... [--config FILE]")
    assert "A cart that exists for these tests only." in text
    assert "Where it goes. (required)" in text
    assert "engine:\n  What drives.\n" in text
    assert "--engine.power NUMBER" in text
    assert "Power in kW, 100% of it. (default: 9.0)" in text
    assert "--engine.fuel {oil,wood}" in text
    assert "Power in kW, 100% of it. (default: 1.5)" in text  # the spare's
    assert printed(capsys, "-h") == text


def test_print_config_is_a_template_that_can_be_read_back(
    capsys: pytest.CaptureFixture[str], cart_file: Path
) -> None:
    text = printed(capsys, "--print_config")
    assert text == (
        "out: null\nnames:\n  - a\n  - b\nlabel: none\nwheels: 4\nroof: false\n"
        "engine:\n  power: 9.0\n  fuel: oil\n  cylinders: null\n"
        "spare:\n  power: 1.5\n  fuel: oil\n  cylinders: null\n"
    )
    cart_file.write_text(text)
    assert parse("--config", str(cart_file), "--out", "x") == Cart(out=Path("x"))


def test_print_config_shows_what_files_and_flags_made(
    capsys: pytest.CaptureFixture[str], cart_file: Path
) -> None:
    cart_file.write_text("wheels: 8\n")
    text = printed(
        capsys, "--print-config", "--config", str(cart_file), "--spare.power=1e-5", "--out=o", "fox"
    )
    assert "out: o\nnames:\n  - fox\nlabel: none\nwheels: 8\n" in text
    cart_file.write_text(text)
    assert parse("--config", str(cart_file)) == Cart(
        out=Path("o"), names=("fox",), wheels=8, spare=Engine(power=1e-5)
    )


def test_dump_is_read_back_unchanged(cart_file: Path) -> None:
    run = TrainTransformer(
        out=Path("runs/a b"),
        tokens=Path("/data/tokens"),
        optim=OptimConfig(lr=1e-5, weight_decay=0.0),
        sample_captions=(
            "1e-4",
            "no",
            "true",
            "null",
            "a: b",
            " a ",
            "a\nb",
            "# c",
            "0o17",
            "fußgänger",
        ),
    )
    text = flags.dump(run)
    assert "fußgänger" in text
    cart_file.write_text(text, encoding="utf-8")
    assert flags.load(TrainTransformer, cart_file) == run


def test_load_says_what_is_missing(cart_file: Path) -> None:
    cart_file.write_text("tokens: y\n")
    with pytest.raises(ValueError, match=r"^missing --out PATH; give it as a flag or in a file"):
        flags.load(TrainTransformer, cart_file)


plain = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\ufeff")),
    st.booleans(),
    st.none(),
    st.integers(),
    st.floats(allow_nan=False),
)


@given(tree=st.dictionaries(st.text("abc", min_size=1), st.one_of(plain, st.lists(plain))))
def test_yaml_round_trips_every_plain_value(
    tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "tree.yaml"
    path.write_text(dump_yaml(tree), encoding="utf-8")
    assert read_yaml(path) == tree
    assert repr(read_yaml(path)) == repr(tree)  # 1 and 1.0 and True are equal, but not the same


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("!!int abc", "int"),
        ("9" * 5000, "int"),
        ("!!bool maybe", "bool"),
        ("!!timestamp x", "times"),
    ],
)
def test_what_a_tag_cannot_make_of_a_text_is_named_with_file_and_line(
    value: str, kind: str, tmp_path: Path
) -> None:
    """Bug: `invalid literal for int()`, and nothing about where."""
    path = tmp_path / "tree.yaml"
    path.write_text(f"a: 1\nb: {value}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"tree.yaml is not valid YAML: line 2, .* no {kind}"):
        read_yaml(path)


# -------------------------------------------------------------------------------- numbers of a list


@dataclass(frozen=True, kw_only=True)
class Scales:
    """`dalle scales`: scales that exist for these tests only."""

    names: tuple[str, ...] = ()
    """What is weighed."""
    loads: tuple[float, ...] = ()
    """Loads in kg to compare."""
    dishes: int = 2
    """How many dishes."""


def weigh(*argv: str) -> Scales:
    return flags.parse(Scales, argv, prog="dalle scales", positional="names")


@pytest.mark.parametrize(
    ("words", "loads"),
    [
        (["--loads", "0.5"], (0.5,)),
        (["--loads", "0.5", "1", "2e3"], (0.5, 1.0, 2000.0)),
        (["--loads", "-1", "2"], (-1.0, 2.0)),
        (["--loads", "[0.5, 1]"], (0.5, 1.0)),
        (["--loads=[0.5, 1]"], (0.5, 1.0)),
        (["--loads", "1", "2", "--dishes", "3"], (1.0, 2.0)),
    ],
)
def test_numbers_of_a_list_may_follow_one_by_one(
    words: list[str], loads: tuple[float, ...]
) -> None:
    scales = weigh(*words)
    assert scales.loads == loads
    assert all(type(load) is float for load in scales.loads)


def test_what_follows_the_numbers_is_no_number() -> None:
    assert weigh("--loads", "1", "2", "a fox").names == ("a fox",)
    for words in (["--loads", "heavy"], ["--loads", "[1, heavy]"]):
        with pytest.raises(ValueError, match=r"loads must be numbers, such as 1 2.5 or '\[1, 2.5"):
            weigh(*words)
    with pytest.raises(ValueError, match="--loads needs a value, numbers"):
        weigh("--loads", "--dishes", "3")
