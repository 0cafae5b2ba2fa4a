"""What every mistake in a flag or a file is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalle import flags
from dalle.config import TrainTransformer, TrainVae
from tests.unit.carts import error, parse


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
def test_a_wrong_file_is_answered_by_one_line(cart_file: Path, text: str, message: str) -> None:
    cart_file.write_text(text)
    assert error("--config", str(cart_file)) == message.replace("FILE", str(cart_file))


def test_a_file_that_is_not_text_is_named(cart_file: Path, tmp_path: Path) -> None:
    cart_file.write_bytes(b"label: \xff\n")
    message = error("--config", str(cart_file))
    assert message == f"config {cart_file} must be UTF-8 text, but byte 7 is not"
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


@settings(max_examples=15)
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
