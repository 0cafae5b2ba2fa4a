"""The `dalle` command from outside: verbs, exit status, what goes to stdout and what to stderr."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dalle import cli
from dalle.cli import VERBS, Verb, main
from dalle.console import bar_disabled
from dalle.errors import DataError
from dalle.options import options
from dalle.transforms import TRANSFORMS
from dalle.version import __version__

HEAVY = ("torch", "numpy", "gradio", "open_clip", "tokenizers", "PIL", "tqdm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greet:
    """`dalle greet`: say something; a verb that exists for these tests only."""

    words: tuple[str, ...] = ()
    """What to say."""
    times: int = 1
    """How often."""


def install_verb(patch: pytest.MonkeyPatch, handler: str) -> None:
    """Add `dalle greet`, which `handler` does."""
    verb = Verb(words="greet", settings=Greet, handler=handler, positional="words")
    patch.setattr(cli, "VERBS", (*VERBS, verb))


def greeting(action: Callable[[Greet], int]) -> Callable[[pytest.MonkeyPatch], None]:
    """Makes `dalle greet` do `action`, through the same table as every verb."""

    def install(patch: pytest.MonkeyPatch) -> None:
        patch.setitem(sys.modules, "greeting", SimpleNamespace(greet=action))
        install_verb(patch, "greeting:greet")

    return install


def raising(error: BaseException) -> Callable[[Any], int]:
    def action(_: Any) -> int:
        raise error

    return action


# ---------------------------------------------------------------------------------------- the verbs


def test_the_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for verb in VERBS:
        assert re.search(rf"^  dalle {verb.words} +[A-Z]", out, re.MULTILINE), verb.words


def test_the_help_of_a_group_lists_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert "dalle train vae" in out
    assert "dalle train transformer" in out
    assert "dalle generate" not in out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dalle {__version__}\n"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.words)
def test_every_verb_has_help_in_the_form_that_help_is_made_of(
    verb: Verb, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb.words.split(), "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: dalle {verb.words}")
    assert (verb.settings.__doc__ or "").startswith(f"`dalle {verb.words}`: ")
    for option in options(verb.settings):
        assert option.note, f"{option.owner.__name__}.{option.key} has a note below it"


def test_help_shows_how_many_words_and_which_values(capsys: pytest.CaptureFixture[str]) -> None:
    """`IMAGE...` once promised several pictures, and "None" is not what a flag takes."""
    for typed, usage in (
        ("transform", "dalle transform IMAGE ["),
        ("bench", "dalle bench [WORKLOAD] ["),
        ("generate", "dalle generate CAPTIONS... ["),
    ):
        assert main([typed, "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: {usage}")
        assert "None" not in text
        if typed == "transform":
            assert all(transform.name in text for transform in TRANSFORMS)


def test_no_setting_has_the_name_of_a_flag_that_every_verb_knows() -> None:
    everywhere = {"help", "config", "print_config", "quiet", "debug", "version"}
    for verb in VERBS:
        assert not everywhere & {option.key for option in options(verb.settings)}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", ("error: a verb is missing, one of data emoji, data check, data convert, data drawn, "
              "train vae, import vae, tokenize, train transformer, train clip, pack, generate, "
              "transform, suggest, demo, eval vae, eval transforms, eval, bench, probe; see "
              "`dalle --help`")),
        ("train", "error: `dalle train` needs one more word: vae or transformer or clip"),
        ("train --out x", "error: `dalle train` needs one more word: vae or transformer or clip"),
        ("train va", "error: unknown verb 'train va'; did you mean `dalle train vae`?"),
        ("trian vae", "error: unknown verb 'trian'; did you mean `dalle train vae`?"),
        ("generat fox", "error: unknown verb 'generat'; did you mean `dalle generate`?"),
        ("tokenise --out x", "error: unknown verb 'tokenise'; did you mean `dalle tokenize`?"),
        ("qqqq", "error: unknown verb 'qqqq'; see `dalle --help`"),
        ("generate fox --sed 3", "error: unknown flag --sed; did you mean --seed?"),
        ("generate fox --seed x", "error: --seed must be a whole number, got 'x'"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_one_line_on_stderr_and_status_2(
    typed: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed.split()) == 2
    assert capsys.readouterr() == ("", f"{message}\n")


@pytest.mark.parametrize(
    ("typed", "field", "value"),
    [
        ("--candidates 0", "candidates", "0"),
        ("--candidates 4 --keep 5", "keep", "5"),
        ("--temperature -1", "temperature", "-1.0"),
        ("--top_p 1.2", "top_p", "1.2"),
        ("--top-k -1", "top_k", "-1"),
    ],
)
def test_a_value_out_of_range_names_field_and_value(
    typed: str, field: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a fox", *typed.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: {field} must be .*, got {re.escape(value)}\b.*\n", err), err


def test_settings_reach_the_handler_and_its_status_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received: list[Greet] = []

    def action(settings: Greet) -> int:
        received.append(settings)
        return 7

    greeting(action)(monkeypatch)
    assert main(["greet", "hello", "--times", "2", "--", "--debug"]) == 7
    assert received == [Greet(words=("hello", "--debug"), times=2)]


# ------------------------------------------------------------------------------------ how it ends


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DataError("no pictures in x"), 1, "no pictures in x"),
        (ValueError("seed must be\n  positive"), 2, "seed must be positive"),
        (FileNotFoundError(2, "No such file or directory", "a/b"), 1,
         "a/b: No such file or directory"),
        (PermissionError(13, "Permission denied", b"raw"), 1, "raw: Permission denied"),
        (OSError("the disk is tired"), 1, "the disk is tired"),
        (ValueError("drawn by \x1b]0;x\x07\x1b[2Jmodel"), 2, "drawn by ]0;x [2Jmodel"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (ZeroDivisionError("by zero"), 1,
         "ZeroDivisionError: by zero (not expected; --debug shows where)"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_a_status(
    error: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    greeting(raising(error))(monkeypatch)
    assert main(["greet"]) == status
    assert capsys.readouterr() == ("", f"error: {message}\n")


@pytest.mark.parametrize("by_flag", [True, False])
def test_debug_adds_the_traceback(
    by_flag: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    greeting(raising(DataError("no pictures")))(monkeypatch)
    if not by_flag:
        monkeypatch.setenv("DALLE_DEBUG", "1")
    assert main(["greet", *["--debug"] * by_flag]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "in action" in err
    assert err.endswith("error: no pictures\n")


def test_a_status_that_a_handler_exits_with_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    greeting(raising(SystemExit(143)))(monkeypatch)
    assert main(["greet"]) == 143


def test_sigterm_unwinds_and_the_old_handler_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    unwound: list[bool] = []

    def action(_: Greet) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            unwound.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    greeting(action)(monkeypatch)
    assert main(["greet"]) == 143
    assert unwound == [True]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_amid_imports_comes_when_they_are_done(
    number: signal.Signals, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's C code imports numpy and drops what is raised there: training then went on."""
    lines = (
        "import os, time",
        "try:",
        f"    os.kill(os.getpid(), {number:d})",
        "    time.sleep(0.2)",
        "except BaseException:",
        "    raise ImportError('half a module')",
        "def greet(_):",
        "    raise AssertionError('the signal was lost')",
    )
    (tmp_path / "disturbed_import.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    install_verb(monkeypatch, "disturbed_import:greet")
    before = signal.getsignal(signal.SIGINT)
    assert main(["greet"]) == status
    assert signal.getsignal(signal.SIGINT) is before
    del sys.modules["disturbed_import"]


def test_it_can_run_outside_the_main_thread() -> None:
    """Python refuses to set signal handlers there; main() must not fail on it."""
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(main(["--version"])))
    thread.start()
    thread.join()
    assert statuses == [0]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """Like `dalle --help | head -0`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    run = subprocess.run(
        [sys.executable, "-m", "dalle", "--help"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        check=False,
        cwd=Path(__file__).parents[2],
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
    )
    os.close(write_end)
    assert (run.returncode, run.stderr) == (1, b"")


def test_a_stopped_command_keeps_its_status_when_nobody_reads_it(tmp_path: Path) -> None:
    """Of `dalle generate --json | jq`, Ctrl-C ends both: Python itself then gave status 120."""
    (tmp_path / "interrupted.py").write_text(
        "def greet(_):\n    print('what there is')\n    raise KeyboardInterrupt\n"
    )
    program = (
        "import sys; from dalle import cli, config\n"
        "verb = cli.Verb(words='greet', settings=config.Bench, handler='interrupted:greet')\n"
        "cli.VERBS = (verb,); sys.exit(cli.main(['greet']))"
    )
    read_end, write_end = os.pipe()
    os.close(read_end)
    paths = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[2])))
    run = subprocess.run(
        [sys.executable, "-c", program],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": ""},
    )
    os.close(write_end)
    assert (run.returncode, run.stderr) == (130, "error: stopped by Ctrl-C\n")


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_is_no_error(closed: int) -> None:
    """As `dalle --version >&-` leaves it; Python has None there."""
    run = subprocess.run(
        ["sh", "-c", f'"$0" -m dalle --version {closed}>&-', sys.executable],
        cwd=Path(__file__).parents[2],
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0
    assert run.stdout == ("" if closed == 1 else f"dalle {__version__}\n")
    assert run.stderr == ""


def test_a_narrow_encoding_escapes_what_it_cannot_write() -> None:
    """Pictures were once drawn, and the command then ended as wrong usage."""
    program = "import sys; from dalle.cli import main; main(['--version']); print('狐…')"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert run.stdout.splitlines()[1] == rb"\u72d0\u2026"


# ---------------------------------------------------------------------------- what is said and when


def test_news_goes_to_stderr_and_quiet_leaves_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden: list[bool | None] = []

    def action(_: Greet) -> int:
        logging.getLogger("dalle.train.loop").info("step 1")
        logging.getLogger("vae.quantize").warning("few codes")
        hidden.append(bar_disabled())
        return 0

    greeting(action)(monkeypatch)
    assert main(["greet"]) == 0
    assert capsys.readouterr() == ("", "step 1\nwarning: few codes\n")
    assert main(["greet", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "warning: few codes\n")
    assert hidden == [None, True]  # None: tqdm shows its bar if stderr is a terminal


@pytest.mark.parametrize(
    "typed",
    ["--help", "--version", "train", "generat", "generate --help", "train vae --out x",
     "train vae --optim.lrr 3", "generate fox --keep 99", "train transformer --print_config",
     "generate --caption-file gone.txt", "generate fox --image gone.png",
     "generate --like gone.png", "transform gone.png --to sketch"],
)  # fmt: skip
def test_answers_at_once_and_without_heavy_imports(typed: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dalle", *typed.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode in ((1,) if "gone" in typed else (0, 2)), run.stderr
    loaded = set(re.findall(r"\| +([\w.]+)$", run.stderr, re.MULTILINE))
    assert "dalle.cli" in loaded  # the listing is there
    assert not loaded & set(HEAVY)
    # Processor time, which other programs on this machine do not stretch. Measured: 0.06 to 0.15 s.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_of_a_copy_the_file_that_could_not_be_written_is_named() -> None:
    """Bug: on a full disk `dalle pack` named the model that it copied from."""
    full = OSError(28, "No space left on device", "from.safetensors", None, "to.safetensors")
    assert cli._verdict(full) == (1, "to.safetensors: No space left on device")
