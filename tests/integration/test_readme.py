"""Every command and every program of README.md, tried."""

from __future__ import annotations

import ast
import importlib
import io
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle import TextToImage, flags
from dalle.cli import VERBS, Verb, main
from tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """A fenced block of the README."""

    line: int
    """Line of the file on which its content begins."""
    language: str
    content: str


def blocks(text: str) -> list[Block]:
    return [
        Block(text[: match.start("content")].count("\n") + 1, match["language"], match["content"])
        for match in re.finditer(
            r"^```(?P<language>\w*)[^\n]*\n(?P<content>.*?)^```$", text, re.DOTALL | re.MULTILINE
        )
    ]


def commands(text: str) -> list[tuple[int, list[str]]]:
    """The words of every command in `sh` blocks, also behind a pipe, with its line; no comments."""
    found = []
    for block in blocks(text):
        if block.language not in ("sh", "bash", "shell", "console"):
            continue
        joined = block.content.replace("\\\n", "  ")
        for offset, line in enumerate(joined.splitlines()):
            words = shlex.split(line.removeprefix("$ "), comments=True)
            for is_pipe, piped in groupby(words, key=lambda word: word == "|"):
                if not is_pipe:
                    found.append((block.line + offset, [*piped]))
    return found


COMMANDS = commands(README)
PROGRAMS = [block for block in blocks(README) if block.language == "python"]


def dalle_words(words: list[str]) -> list[str] | None:
    """What follows `dalle`, however it is called; None for other programs."""
    program, *rest = words
    if Path(program).name == "dalle":
        return rest
    if Path(program).name.startswith("python") and rest[:2] == ["-m", "dalle"]:
        return rest[2:]
    return None


def of_kind(kind: str) -> list[Any]:
    """Parameters: the README's commands of one kind, named by their line."""
    chosen = []
    for line, words in COMMANDS:
        own = dalle_words(words)
        match kind:
            case "dalle" if own is not None:
                chosen.append(pytest.param(own, id=f"line {line}"))
            case "generate" if own is not None and own[:1] == ["generate"]:
                chosen.append(pytest.param(own[1:], id=f"line {line}"))
            case "make" if words[0] == "make":
                chosen.append(pytest.param(words, id=f"line {line}"))
    return chosen


def test_the_readme_has_commands_and_programs() -> None:
    assert of_kind("dalle")
    assert of_kind("generate")
    assert of_kind("make")
    assert PROGRAMS


def verb_of(words: list[str]) -> tuple[Verb, list[str]]:
    for verb in VERBS:
        parts = verb.words.split()
        if words[: len(parts)] == parts:
            return verb, words[len(parts) :]
    raise AssertionError(f"README.md: `dalle {' '.join(words)}` begins with no verb")


@pytest.mark.parametrize("words", of_kind("dalle"))
def test_every_dalle_command_is_understood(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)  # configs are named from here
    if words[0].startswith("-"):
        assert main(words) == 0
        assert capsys.readouterr().out
        return
    verb, rest = verb_of(words)
    built: object = flags.parse(
        verb.settings, rest, prog=f"dalle {verb.words}", positional=verb.positional
    )
    assert isinstance(built, verb.settings)


def write_given(folder: Path, model: Path) -> None:
    """What the README's examples read: pictures from anywhere and of the model's own, captions."""
    (folder / "captions.txt").write_text("a fox\n\ntwo apples\n", encoding="utf-8")
    Image.effect_noise((64, 48), 80).convert("RGB").save(folder / "fox.png")
    (folder / "pictures").mkdir()
    drawn = TextToImage.from_pretrained(model, device="cpu").generate("a fox", candidates=1)
    drawn.images[0].save(folder / "pictures" / "PICTURE.png")


@pytest.mark.parametrize("words", of_kind("generate"))
def test_every_generate_command_draws(
    words: list[str],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the tiny model, whichever model the README names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a fox\na fox in a hat\n")))
    write_given(tmp_path, tiny_model)
    assert main(["generate", *words, "--model", str(tiny_model)]) == 0
    out, err = capsys.readouterr()
    assert "error" not in err
    assert out
    # At least one beside the two that were there before.
    assert len(list(tmp_path.rglob("*.png"))) > 2


@pytest.mark.parametrize("words", of_kind("make"))
def test_every_make_command_has_a_recipe(words: list[str]) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    run = subprocess.run(
        ["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


def test_every_other_program_is_one_that_newcomers_have() -> None:
    for line, words in COMMANDS:
        if dalle_words(words) is None and words[0] != "make":
            own = re.fullmatch(r"(?:\.venv/bin/)?(python3?|pip|pytest|ruff|mypy)", words[0])
            common = words[0] in ("git", "cd", "apt-get", "sudo", "export")
            assert own or common, f"line {line}: {' '.join(words)}"


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: f"line {block.line}")
def test_every_name_that_a_program_imports_exists(block: Block) -> None:
    for node in ast.walk(ast.parse(block.content)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: f"line {block.line}")
def test_every_program_runs(
    block: Block,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the tiny model in place of the bundled one."""
    monkeypatch.chdir(tmp_path)
    write_given(tmp_path, tiny_model)
    program = block.content.replace('"emoji"', repr(str(tiny_model)))
    exec(compile(program, f"README.md, line {block.line}", "exec"), {"__name__": "__main__"})
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"\]\((?!https?://|#)([^)#]+)\)", README)))
)
def test_every_link_into_the_repository_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists(), f"README.md links to {target}, which does not exist"


def test_commands_are_found_as_a_person_reads_them() -> None:
    text = (
        'x\n```sh\n# a comment\n$ dalle generate "a fox"  # draws\nmake \\\n  test\n```\n'
        "```python\nprint()\n```\n"
    )
    assert commands(text) == [(4, ["dalle", "generate", "a fox"]), (5, ["make", "test"])]
    assert [(block.line, block.language) for block in blocks(text)] == [(3, "sh"), (9, "python")]
