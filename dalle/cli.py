"""The `dalle` command: a table of verbs, and what the world sees when one of them ends.

Results go to stdout; progress, logs and errors go to stderr. What does a verb's work is imported
when its settings are known to be right, so that help and usage errors answer at once.

Exit status: 0 done, 1 the run failed, 2 the command was wrong, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from dalle import config
from dalle.caption_file import STDIN
from dalle.console import configure_log
from dalle.errors import DalleError
from dalle.labels import one_line
from dalle.signals import handling
from dalle.version import __version__

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One thing `dalle` can do."""

    words: str
    """What is typed after `dalle`."""
    settings: type
    """Dataclass of `dalle.config` that the rest of the command line is read into."""
    handler: str
    """`module:function`: takes the settings, does the work, returns the exit status."""
    positional: str | None = None
    """Field that takes words without a flag."""
    reads: tuple[str, ...] = ()
    """Fields that name files, whose absence is told before seconds are spent on importing torch."""

    @property
    def summary(self) -> str:
        """What the verb does, in one line."""
        return (self.settings.__doc__ or "").partition("\n")[0].partition(": ")[2]

    def load(self) -> Callable[[Any], int]:
        """The handler, imported with all that it needs."""
        module, function = self.handler.split(":")
        with _signals_held():
            handler: Callable[[Any], int] = getattr(import_module(module), function)
        return handler

    def run(self, settings: Any) -> int:
        """Do it, and return the exit status.

        Raises:
            FileNotFoundError: A file that it reads is not there.
        """
        _require_files(*(getattr(settings, name) for name in self.reads))
        return self.load()(settings)


VERBS = (
    Verb(
        words="data emoji", settings=config.DataEmoji, handler="dalle.data.emoji.write:write_scenes"
    ),
    Verb(
        words="data check",
        settings=config.DataCheck,
        handler="dalle.data.check:run",
        positional="data",
    ),
    Verb(
        words="data convert",
        settings=config.DataConvert,
        handler="dalle.data.convert:run",
        positional="data",
    ),
    Verb(words="data drawn", settings=config.DataDrawn, handler="dalle.drawn_command:run"),
    Verb(words="train vae", settings=config.TrainVae, handler="dalle.train.runs:train_vae"),
    Verb(
        words="import vae",
        settings=config.ImportVae,
        handler="dalle.import_command:run",
        reads=("encoder", "decoder", "checkpoint"),
    ),
    Verb(words="tokenize", settings=config.Tokenize, handler="dalle.train.tokenize:tokenize"),
    Verb(
        words="train transformer",
        settings=config.TrainTransformer,
        handler="dalle.train.runs:train_transformer",
    ),
    Verb(words="train clip", settings=config.TrainClip, handler="dalle.train.runs:train_clip"),
    Verb(words="pack", settings=config.Pack, handler="dalle.pack_command:run"),
    Verb(
        words="generate",
        settings=config.Generate,
        handler="dalle.generate_command:run",
        positional="captions",
        reads=("caption_file", "image", "vary", "like"),
    ),
    Verb(
        words="transform",
        settings=config.Transform,
        handler="dalle.transform_command:run",
        positional="image",
        reads=("image",),
    ),
    Verb(
        words="suggest",
        settings=config.Suggest,
        handler="dalle.suggest_command:run",
        positional="begin",
    ),
    Verb(words="demo", settings=config.Demo, handler="dalle.page.serve:run"),
    Verb(words="eval vae", settings=config.EvalVae, handler="dalle.evaluate.vae:run"),
    Verb(
        words="eval transforms",
        settings=config.EvalTransforms,
        handler="dalle.eval_transforms_command:run",
    ),
    # After the verbs that begin with its word, since the first that fits is taken.
    Verb(words="eval", settings=config.EvalModel, handler="dalle.eval_command:run"),
    Verb(
        words="bench",
        settings=config.Bench,
        handler="dalle.bench_command:run",
        positional="workload",
    ),
    Verb(words="probe", settings=config.Probe, handler="dalle.probe_command:run"),
)


def _require_files(*paths: Path | None) -> None:
    """Nothing, if those given are there; asked before seconds are spent on importing torch.

    Raises:
        FileNotFoundError: One is not. What looks like a URL, and standard input, are
            left to whoever reads them.
    """
    for path in paths:
        if path is None or path == STDIN or ":/" in str(path):
            continue
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The words after `dalle`; None takes those of the process.
    """
    _mend_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    debug = _take(words, "--debug") or os.environ.get("DALLE_DEBUG", "0") not in ("", "0")
    configure_log(quiet=_take(words, "--quiet"))
    try:
        with handling(_leave, signal.SIGTERM):
            status = _run(words)
            sys.stdout.flush()
            return status
    except SystemExit as stop:
        _let_go_of_stdout()
        return stop.code if isinstance(stop.code, int) else EXIT_DONE
    except BrokenPipeError:
        _let_go_of_stdout()
        return EXIT_FAILED
    except (Exception, KeyboardInterrupt) as err:  # noqa: BLE001 - the last door: all end as a line
        _let_go_of_stdout()
        if debug:
            traceback.print_exc()
        status, message = _verdict(err)
        # Messages quote what strangers wrote: captions, file names, the settings in a picture.
        print(f"error: {one_line(message)}", file=sys.stderr)
        return status


def _let_go_of_stdout() -> None:
    """Write what is still to be written, if anybody reads it.

    Whoever read our results may have left, as `head` does; Python, which would try once more when
    it ends, has a status of its own for that.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _mend_streams() -> None:
    """Let results be written wherever stdout and stderr lead, or nowhere if they are closed.

    Captions may be of any script, and a terminal's encoding need not know it.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - stays open
            setattr(sys, name, nowhere)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _verdict(err: BaseException) -> tuple[int, str]:
    """Exit status and message of an error that ended a command."""
    match err:
        case KeyboardInterrupt():
            return EXIT_INTERRUPTED, "stopped by Ctrl-C"
        case ValueError():
            return EXIT_USAGE, str(err)
        case DalleError():
            return EXIT_FAILED, str(err)
        case OSError(filename=None):
            return EXIT_FAILED, str(err)
        case OSError():
            # Of a copy, the file that is written is the second.
            return EXIT_FAILED, f"{os.fsdecode(err.filename2 or err.filename)}: {err.strerror}"
        case _:
            return EXIT_FAILED, f"{type(err).__name__}: {err} (not expected; --debug shows where)"


def _run(words: list[str]) -> int:
    """Find the verb, read its settings, hand over."""
    if words[:1] == ["--version"]:
        return _answer(f"dalle {__version__}")
    if words[:1] in (["--help"], ["-h"]):
        return _answer(_overview())
    for verb in VERBS:
        parts = verb.words.split()
        if words[: len(parts)] == parts:
            from dalle import flags

            settings: Any = flags.parse(
                verb.settings,
                words[len(parts) :],
                prog=f"dalle {verb.words}",
                positional=verb.positional,
            )
            return verb.run(settings)
    if len(words) == 2 and words[1] in ("--help", "-h") and _members(words[0]):
        return _answer(_overview(words[0]))
    raise _unknown_verb(words)


def _unknown_verb(words: list[str]) -> ValueError:
    known = [verb.words for verb in VERBS]
    if not words:
        return ValueError(f"a verb is missing, one of {', '.join(known)}; see `dalle --help`")
    first, *rest = words
    second = [word for word in rest[:1] if not word.startswith("-")]
    if _members(first) and not second:
        return ValueError(f"`dalle {first}` needs one more word: {' or '.join(_members(first))}")
    typed = " ".join([first, *second]) if _members(first) else first
    for attempt in (" ".join([first, *second]), first):
        candidates = [*known, *dict.fromkeys(name.split()[0] for name in known)]
        for match in difflib.get_close_matches(attempt, candidates, n=1):
            return ValueError(f"unknown verb {typed!r}; did you mean `dalle {match}`?")
    return ValueError(f"unknown verb {typed!r}; see `dalle --help`")


def _members(group: str) -> list[str]:
    """Second words of the verbs that begin with `group`."""
    return [verb.words.split()[1] for verb in VERBS if verb.words.startswith(f"{group} ")]


def _overview(group: str = "") -> str:
    lines = [
        f"usage: dalle {group or 'VERB'} ... [--config FILE] [--section.key VALUE ...]",
        "",
        "Pictures from captions: make or read data, train, draw.",
        "",
    ]
    shown = [verb for verb in VERBS if not group or verb.words.startswith(f"{group} ")]
    lines += [
        f"  dalle {verb.words:<20}{verb.summary[:1].upper()}{verb.summary[1:]}" for verb in shown
    ]
    lines += [
        "",
        "  --help      after a verb: all its settings, with their defaults",
        "  --quiet     only warnings and errors on stderr, no progress",
        "  --debug     show where an error happened (also DALLE_DEBUG=1)",
        "  --version   print the version",
    ]
    return "\n".join(lines)


def _take(words: list[str], flag: str) -> bool:
    """Whether `flag` stands before any `--`; it is removed, since it belongs to every verb."""
    end = words.index("--") if "--" in words else len(words)
    found = flag in words[:end]
    words[:end] = [word for word in words[:end] if word != flag]
    return found


def _leave(signum: int, _frame: object) -> NoReturn:
    """Unwind the program as Ctrl-C does; training hears of signals itself while it runs."""
    raise SystemExit(128 + signum)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until everything is imported, and come then.

    torch's C code imports numpy, and drops what is raised meanwhile: the signal was lost, or numpy
    was left half imported, which ended the program with an error of its own.
    """
    came: list[int] = []
    try:
        with handling(lambda number, _frame: came.append(number), signal.SIGINT, signal.SIGTERM):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


def _answer(text: str) -> int:
    print(text)
    return EXIT_DONE
