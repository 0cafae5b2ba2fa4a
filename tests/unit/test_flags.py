"""Settings from files and flags: what is read, and what every mistake is answered with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalle import flags
from dalle.config import OptimConfig, TrainTransformer, TrainVae
from dalle.yaml_file import dump_yaml, read_yaml


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What drives."""

    power: float = 1.5
    """Power in kW, 100% of it."""
    fuel: Literal["oil", "wood"] = "oil"
    """What burns."""
    cylinders: int | None = None
    """Cylinders; None lets the maker choose."""

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise ValueError(f"power must be greater than 0, got {self.power}")


@dataclass(frozen=True, kw_only=True)
class Cart:
    """`dalle cart`: a cart that exists for these tests only."""

    out: Path
    """Where it goes."""
    names: tuple[str, ...] = ("a", "b")
    """Names on the plate."""
    label: str = "none"
    """A label."""
    wheels: int = 4
    """How many wheels."""
    roof: bool = False
    """Whether it has a roof."""
    engine: Engine = field(default_factory=lambda: Engine(power=9.0))
    spare: Engine = field(default_factory=Engine)


def parse(*argv: str) -> Cart:
    return flags.parse(Cart, argv, prog="dalle cart", positional="names")


def error(*argv: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller compares the whole text
        parse("--out", "x", *argv)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "cart.yaml"


# ------------------------------------------------------------------------------- what is understood


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


def test_flags_override_files_wherever_they_stand(config: Path) -> None:
    """jsonargparse alone lets a --config that stands last undo the flags before it."""
    config.write_text("out: from-file\nwheels: 8\nengine:\n  power: 2\n  fuel: wood\n")
    cart = parse("--engine.power", "5", "--config", str(config), "--out", "from-flag")
    assert cart == Cart(out=Path("from-flag"), wheels=8, engine=Engine(power=5.0, fuel="wood"))


def test_a_later_file_overrides_an_earlier_one(config: Path, tmp_path: Path) -> None:
    config.write_text("out: x\nwheels: 8\nroof: true\n")
    second = tmp_path / "second.yaml"
    second.write_text("wheels: 2\n")
    cart = parse("--config", str(config), f"--config={second}")
    assert cart == Cart(out=Path("x"), wheels=2, roof=True)


def test_a_wrong_value_in_a_file_is_not_hidden_by_a_flag(config: Path) -> None:
    config.write_text("wheels: many\n")
    message = error("--config", str(config), "--wheels", "4")
    assert message == f"{config}: wheels must be a whole number, got 'many'"


def test_relative_paths_stay_relative_to_where_the_command_runs(config: Path) -> None:
    config.write_text("out: runs/one\n")
    assert parse("--config", str(config)).out == Path("runs/one")


def test_a_section_whose_lines_are_all_commented_out_keeps_its_defaults(config: Path) -> None:
    config.write_text("out: x\nengine:\n#  power: 3\n")
    assert parse("--config", str(config)) == Cart(out=Path("x"))


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", ".0001", "+1e-4"])
def test_scientific_notation_in_files_is_a_number(config: Path, text: str) -> None:
    """PyYAML follows YAML 1.1, in which 1e-4 is text."""
    config.write_text(f"out: x\nengine: {{power: {text}}}\n")
    assert parse("--config", str(config)).engine.power == 0.0001


def test_files_follow_yaml_1_2(config: Path) -> None:
    config.write_text("names: [no, on, yes, 1:30, 2026-01-01, 0o7x, off]\nwheels: 010\nout: x\n")
    cart = parse("--config", str(config))
    assert cart.names == ("no", "on", "yes", "1:30", "2026-01-01", "0o7x", "off")
    assert cart.wheels == 10  # eight in YAML 1.1


def test_files_may_share_parts(config: Path) -> None:
    config.write_text("out: x\nengine: &e {power: 3}\nspare: {<<: *e, fuel: wood}\n")
    assert parse("--config", str(config)).spare == Engine(power=3.0, fuel="wood")


# ---------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--weels", "3"], "unknown flag --weels; did you mean --wheels?"),
        (["--engine.powr", "3"], "unknown flag --engine.powr; did you mean --engine.power?"),
        (["--power", "3"], "unknown flag --power; did you mean --engine.power?"),
        (["--motor.fuel=oil"], "unknown flag --motor.fuel; did you mean --engine.fuel?"),
        (["--conf", "x"], "unknown flag --conf; did you mean --config?"),
        (["--qqqq"], "unknown flag --qqqq; see `dalle cart --help`"),
        (["--engine", "x"], ("--engine is a section; set one of its keys, such as --engine.power "
                            "VALUE")),
        (["-v"], ("unknown flag -v, flags begin with two dashes; put names that begin with a dash "
                 "after --")),
        (["--wheels"], "--wheels needs a value, a whole number: --wheels VALUE"),
        (["--wheels", "--roof"], "--wheels needs a value, a whole number: --wheels VALUE"),
        (["--wheels", "4.5"], "--wheels must be a whole number, got '4.5'"),
        (["--wheels="], "--wheels must be a whole number, got ''"),
        (["--roof=maybe"], "--roof must be true or false, got 'maybe'"),
        (["--engine.power", "much"], "--engine.power must be a number, got 'much'"),
        (["--engine.power", "null"], "--engine.power must be a number, got 'null'"),
        (["--engine.power", ".inf"], "--engine.power must be a finite number, got '.inf'"),
        (["--engine.power", ".nan"], "--engine.power must be a finite number, got '.nan'"),
        (["--engine.fuel", "coal"], "--engine.fuel must be one of oil, wood, got 'coal'"),
        (["--engine.cylinders", "x"],
         "--engine.cylinders must be a whole number, or null, got 'x'"),
        (["--out="], "--out must be a path, got ''"),
        (["--engine.power", "-1"], "engine.power must be greater than 0, got -1.0"),
        (["--spare.power", "-1"], "spare.power must be greater than 0, got -1.0"),
        (["--label", "x", "--wheels", "9" * 100 + "x"],
         f"--wheels must be a whole number, got '{'9' * 59}..."),
        (["--config", "nowhere.yaml"],
         "cannot read config nowhere.yaml: No such file or directory"),
        (["--config"], "--config needs a value, a path: --config VALUE"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_answered_by_one_line(argv: list[str], message: str) -> None:
    assert error(*argv) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weels: 3\n", "FILE: unknown key weels; did you mean wheels?"),
        ("engine: {powr: 3}\n", "FILE: unknown key engine.powr; did you mean engine.power?"),
        ("engine:\n  fuel:\n    kind: oil\n",
         "FILE: engine.fuel must be one of oil, wood, got {'kind': 'oil'}"),
        ("enginne: {fuel: oil}\n", "FILE: unknown key enginne; did you mean engine?"),
        ("motor: {fuel: oil}\n",
         "FILE: unknown key motor; known: out, names, label, wheels, roof, engine, spare"),
        ("engine: {gear: 2}\n", "FILE: unknown key engine.gear; known: power, fuel, cylinders"),
        ("engine: 3\n", "FILE: engine is a section, got 3; write its keys indented below"),
        ("engine: []\n", "FILE: engine is a section, got []; write its keys indented below"),
        ("wheels: 1e1\n", "FILE: wheels must be a whole number, got 10.0"),
        ("wheels: true\n", "FILE: wheels must be a whole number, got True"),
        ("wheels: null\n", "FILE: wheels must be a whole number, got null"),
        ("label: 5\n", "FILE: label must be text (in quotes if it looks like a number), got 5"),
        ("roof: 1\n", "FILE: roof must be true or false, got 1"),
        ("names: fox\n", ("FILE: names must be a list of texts such as '[a fox, a pizza]' (numbers "
                         "in quotes), got 'fox'")),
        ("names: [fox, 3]\n", ("FILE: names must be a list of texts such as '[a fox, a pizza]' "
                              "(numbers in quotes), got ['fox', 3]")),
        ("engine: {power: .inf}\n", "FILE: engine.power must be a finite number, got inf"),
        ("engine: {power: -1}\n", "engine.power must be greater than 0, got -1.0"),
        ("- wheels\n", "config FILE must hold `key: value` lines, but holds a list"),
        ("wheels: 3\nwheels: 4\n",
         "config FILE is not valid YAML: line 2, column 1: key 'wheels' is written twice"),
        ("engine: {power: 3\n", ("config FILE is not valid YAML: line 2, column 1: expected ',' or "
                                "'}', but got '<stream end>'")),
        ("label: !!python/name:os.system x\n",
         ("config FILE is not valid YAML: line 1, column 8: could not determine a constructor for "
         "the tag 'tag:yaml.org,2002:python/name:os.system'")),
    ],
)  # fmt: skip
def test_a_wrong_file_is_answered_by_one_line(config: Path, text: str, message: str) -> None:
    config.write_text(text)
    assert error("--config", str(config)) == message.replace("FILE", str(config))


def test_a_file_that_is_not_text_is_named(config: Path, tmp_path: Path) -> None:
    config.write_bytes(b"label: \xff\n")
    assert (
        error("--config", str(config)) == f"config {config} must be UTF-8 text, but byte 7 is not"
    )
    assert error("--config", str(tmp_path)) == f"cannot read config {tmp_path}: Is a directory"


def test_what_is_missing_is_named_all_at_once() -> None:
    with pytest.raises(ValueError, match=r"^missing --out PATH, --data.train PATH; give it as a "):
        flags.parse(TrainVae, [], prog="dalle train vae")


def test_words_are_refused_where_none_belong() -> None:
    with pytest.raises(ValueError, match=r"^unexpected word 'fox'; settings are given as --key"):
        flags.parse(TrainVae, ["fox"], prog="dalle train vae")


def test_relations_between_sections_are_checked() -> None:
    argv = ["--out", "x", "--data.train", "y", "--data.image_px", "60", "--model.groups", "4"]
    with pytest.raises(ValueError, match=r"^data\.image_px \(60\) must be divisible by .* \(8 = "):
        flags.parse(TrainVae, argv, prog="dalle train vae")


def test_an_error_that_names_no_field_first_still_names_its_section() -> None:
    argv = ["--out", "x", "--tokens", "y", "--loop.workers", "-1"]
    with pytest.raises(ValueError, match=r"^loop\.workers must not be negative, got -1$"):
        flags.parse(TrainTransformer, argv, prog="dalle train transformer")


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
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    text = printed(capsys, "--print_config")
    assert text == (
        "out: null\nnames:\n  - a\n  - b\nlabel: none\nwheels: 4\nroof: false\n"
        "engine:\n  power: 9.0\n  fuel: oil\n  cylinders: null\n"
        "spare:\n  power: 1.5\n  fuel: oil\n  cylinders: null\n"
    )
    config.write_text(text)
    assert parse("--config", str(config), "--out", "x") == Cart(out=Path("x"))


def test_print_config_shows_what_files_and_flags_made(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    config.write_text("wheels: 8\n")
    text = printed(
        capsys, "--print-config", "--config", str(config), "--spare.power=1e-5", "--out=o", "fox"
    )
    assert "out: o\nnames:\n  - fox\nlabel: none\nwheels: 8\n" in text
    config.write_text(text)
    assert parse("--config", str(config)) == Cart(
        out=Path("o"), names=("fox",), wheels=8, spare=Engine(power=1e-5)
    )


def test_dump_is_read_back_unchanged(config: Path) -> None:
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
            " ",
            "a\nb",
            "# c",
            "0o17",
            "fußgänger",
        ),
    )
    text = flags.dump(run)
    assert "fußgänger" in text
    config.write_text(text, encoding="utf-8")
    assert flags.load(TrainTransformer, config) == run


def test_load_says_what_is_missing(config: Path) -> None:
    config.write_text("tokens: y\n")
    with pytest.raises(ValueError, match=r"^missing --out PATH; give it as a flag or in a file"):
        flags.load(TrainTransformer, config)


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


@settings(max_examples=40)
@given(value=st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_value_becomes_a_setting_or_one_line(value: str) -> None:
    for key in ("wheels", "engine.power", "engine.fuel", "engine.cylinders", "roof", "names"):
        answer = parsed_or_refused("--out", "x", f"--{key}={value}")
        assert answer.startswith(("out: x\n", f"--{key} must be ", f"{key} must be "))
        assert answer.startswith("out: x\n") or "\n" not in answer


def parsed_or_refused(*argv: str) -> str:
    try:
        return flags.dump(parse(*argv))
    except ValueError as err:
        return str(err)


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
