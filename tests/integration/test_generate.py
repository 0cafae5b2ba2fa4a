"""`dalle generate` from outside: files, report, reproduction, and every way to be refused."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from dalle import TextToImage, read_recipe
from dalle.cli import main
from dalle.labels import file_name, shown

ROOT = Path(__file__).parents[2]
FOX = "a fox on a blue background"

Generate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def generate(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Generate:
    """Runs `dalle generate` on the tiny model into `tmp_path/out`: status, stdout, stderr."""

    def run(*words: str, model: Path | str = tiny_model) -> tuple[int, str, str]:
        out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
        status = main(["generate", "--model", str(model), *out, *words])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


# ---------------------------------------------------------------------------------- what comes out


def test_the_report_is_one_json_object_and_nothing_else(
    generate: Generate, tiny_model: Path, tmp_path: Path
) -> None:
    status, out, err = generate(
        FOX, "TWO apples", "--candidates", "6", "--keep", "2", "--seed", "7", "--json"
    )
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    report = json.loads(out)
    assert list(report) == ["captions", "model", "seconds"]
    assert report["model"] == str(tiny_model)
    assert 0 < report["seconds"] < 60
    assert [entry["caption"] for entry in report["captions"]] == [FOX, "TWO apples"]
    expected = TextToImage.from_pretrained(tiny_model).generate(
        [FOX, "TWO apples"], candidates=6, keep=2, seed=7
    )
    for entry, result in zip(report["captions"], expected.results, strict=True):
        assert list(entry) == ["caption", "images"]
        assert [
            (image["seed"], image["index"], image["score"], image["ranker"])
            for image in entry["images"]
        ] == [(7, image.recipe.index, image.score, "likelihood") for image in result.images]
        for image, drawn in zip(entry["images"], result.images, strict=True):
            assert list(image) == ["file", "seed", "index", "score", "ranker", "log_likelihood"]
            path = Path(image["file"])
            assert path.parent == tmp_path / "out"
            assert pixels(path) == drawn.image.tobytes()
            assert read_recipe(path) == drawn.recipe
    sheets = [name for name in files(tmp_path / "out") if name.startswith("sheet-")]
    assert len(files(tmp_path / "out")) == 5
    with Image.open(tmp_path / "out" / sheets[0]) as sheet:
        assert sheet.width == 2 * (128 + 8) + 8, "a row for each caption, a column for each place"


def test_people_read_where_the_pictures_are_best_first(generate: Generate, tmp_path: Path) -> None:
    status, out, err = generate(FOX, "--candidates", "3")
    assert (status, err) == (0, "")
    first, *pictures, sheet, last = out.splitlines()
    assert first == f"{FOX} (best first by likelihood):"
    assert len(pictures) == 3
    scores = []
    for line in pictures:
        path, score = line.split()
        assert Path(path).is_file()
        scores.append(float(score))
    assert scores == sorted(scores, reverse=True)
    assert Path(sheet.removeprefix("all together: ")).is_file()
    assert re.fullmatch(r"\d+\.\d s with model .*tiny", last)


@pytest.mark.parametrize(("words", "kept"), [(("--candidates", "1"), 1), ((), 4)])
def test_four_are_kept_or_as_many_as_there_are(
    words: tuple[str, ...], kept: int, generate: Generate
) -> None:
    """`--candidates 1` was once refused, because the default `--keep 4` was more."""
    status, out, _ = generate(FOX, *words, "--json")
    assert status == 0
    assert len(json.loads(out)["captions"][0]["images"]) == kept


def test_a_cut_caption_is_reported(generate: Generate) -> None:
    status, out, err = generate(" ".join([FOX] * 9), "--candidates", "1", "--json")
    assert status == 0
    notice = json.loads(out)["captions"][0]["notice"]
    assert notice.startswith("only the first 12 tokens of the caption are used: 'a fox on")
    assert err == f"warning: {notice}\n"


def test_the_report_survives_any_stdout(tiny_model: Path, tmp_path: Path) -> None:
    """Latin-1 has no fox; the report once died on it after all the drawing."""
    run = subprocess.run(
        [sys.executable, "-m", "dalle", "generate", "🦊 狐", "--candidates", "1", "--json",
         "--model", str(tiny_model), "--out", str(tmp_path / "out")],
        capture_output=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, b"")
    assert json.loads(run.stdout)["captions"][0]["caption"] == "🦊 狐"


# ------------------------------------------------------------------------------------------- names


NASTY = (
    "../../etc/passwd", "a/b\\c", "CON", "nul.txt", "x" * 300, "line\r\nbreak", "a\x00b", "🦊 狐",
    "Ünïcødé", "-rf", "a fox  ", ".hidden", "%s$HOME`id`", "\x1b[31mred",
)  # fmt: skip


def test_file_names_are_safe_and_tell_captions_apart(generate: Generate, tmp_path: Path) -> None:
    status, out, err = generate("--candidates", "1", "--json", "--", *NASTY)
    assert status == 0, err
    entries = json.loads(out)["captions"]
    assert [entry["caption"] for entry in entries] == list(NASTY)
    written = [Path(entry["images"][0]["file"]) for entry in entries]
    assert len(set(written)) == len(NASTY)
    for path, caption in zip(written, NASTY, strict=True):
        assert path.parent == tmp_path / "out"
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{8}-s0-i000\.png", path.name)
        assert len(path.name) < 80
        assert read_recipe(path).caption == caption
    assert len(files(tmp_path)) == len(NASTY) + 2, "with the folder and the sheet, nothing else"


def test_other_settings_get_another_file(generate: Generate) -> None:
    """A second try at another temperature once replaced the pictures of the first."""
    names = set()
    for words in ((), ("--temperature", "0.5"), ("--top-k", "3"), ("--seed", "1")):
        _, out, _ = generate(FOX, "--candidates", "1", "--json", *words)
        names.add(json.loads(out)["captions"][0]["images"][0]["file"])
    assert len(names) == 4


def test_the_name_of_a_picture_is_its_own(tiny_pipeline: TextToImage) -> None:
    recipe = tiny_pipeline.generate("A  Fox!", candidates=1, seed=-3).images[0].recipe
    assert re.fullmatch(r"a-fox-[0-9a-f]{8}-s-3-i000\.png", file_name(recipe))


def test_what_is_shown_of_a_caption_steers_no_terminal() -> None:
    assert shown("a\x1b[31m fox\r\n on\tblue\u202e", 80) == "a [31m fox on blue"
    assert shown("x" * 50, 10) == "x" * 9 + "…"
    assert shown("x" * 10, 10) == "x" * 10


# ------------------------------------------------------------------------------------- again, like


@pytest.mark.parametrize(("candidates", "index"), [("1", 0), ("5", 3), ("20", 18)])
def test_like_gives_the_same_bytes(
    candidates: str, index: int, generate: Generate, tmp_path: Path
) -> None:
    settings = ("--seed", "-4", "--temperature", "1.1", "--top-p", "0.9", "--guidance-scale", "2")
    _, out, _ = generate(FOX, "--candidates", candidates, "--keep", candidates, "--json", *settings)
    images = json.loads(out)["captions"][0]["images"]
    first = next(Path(image["file"]) for image in images if image["index"] == index)
    status, out, err = generate("--like", str(first), "--json", "--out", str(tmp_path / "again"))
    assert (status, err) == (0, "")
    (again,) = json.loads(out)["captions"][0]["images"]
    assert again["index"] == index
    assert Path(again["file"]).parent == tmp_path / "again"
    assert Path(again["file"]).read_bytes() == first.read_bytes()
    assert files(tmp_path / "again") == [first.name], "one picture needs no sheet"


def png(path: Path, text: str | None) -> Path:
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_itxt("parameters", text)
    Image.new("RGB", (16, 16)).save(path, pnginfo=info)
    return path


def test_like_refuses_what_it_cannot_repeat(generate: Generate, tmp_path: Path) -> None:
    _, out, _ = generate(FOX, "--candidates", "1", "--json", "--out", str(tmp_path / "first"))
    picture = Path(json.loads(out)["captions"][0]["images"][0]["file"])
    with Image.open(picture) as image:
        stored = json.loads(image.info["parameters"])
    (tmp_path / "note.png").write_text("no picture")

    def changed(name: str, **values: Any) -> Path:
        return png(tmp_path / name, json.dumps({**stored, **values}))

    cases = [
        (tmp_path / "gone.png", 2, "does not exist"),
        (tmp_path, 2, "cannot be read as a PNG"),
        (tmp_path / "note.png", 2, "cannot be read as a PNG"),
        (png(tmp_path / "bare.png", None), 2, "holds no settings"),
        (png(tmp_path / "huge.png", " " * 5_000_000), 2, "at most 65,536"),
        (png(tmp_path / "deep.png", "[" * 60_000), 2, "nested too deeply"),
        (changed("type.png", seed="7"), 2, "seed must be a whole number, got '7'"),
        (changed("empty.png", caption=" "), 2, "must not be empty"),
        (changed("batch.png", batch=[4096, 4096]), 2, "at most 256 images"),
        (changed("other.png", model="f" * 16), 1, "drawn by model ffffffffffffffff"),
    ]
    for path, expected, message in cases:
        status, out, err = generate("--like", str(path))
        assert (status, out) == (expected, ""), path
        assert re.fullmatch(rf"error: .*{re.escape(message)}.*\n", err), err
    assert files(tmp_path / "out") == []
    status, _, err = generate(FOX, "--like", str(picture))
    assert status == 2
    assert "give one caption or several to draw" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--seed", "3"], "--seed 3 would change nothing; leave it out"),
        (["--candidates", "4", "--keep", "2"], "--candidates 4, --keep 2 would change nothing; "),
        (["--top-k", "0", "--top-p", "0.5"], "--top-k 0, --top-p 0.5 would"),
        (["--temperature", "0.5"], "--temperature 0.5 would"),
        (["--guidance-scale", "1"], "--guidance-scale 1.0 would"),
        (["--ranker", "none"], "--ranker none would"),
        (["--keep-rows", "2"], "keep_rows 2 says how much of a picture is kept"),
    ],
)
def test_settings_beside_like_are_refused_by_name(
    words: list[str], named: str, generate: Generate, tmp_path: Path
) -> None:
    """They were once ignored without a word; nothing is read before they are refused."""
    status, out, err = generate("--like", "gone.png", *words)
    assert (status, out) == (2, "")
    assert named in err
    assert files(tmp_path / "out") == []


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one caption or several to draw"),
        ([""], "a caption must not be empty, got ''"),
        ([" \t\x00"], "a caption must not be empty"),
        ([FOX, ""], "a caption must not be empty"),
        (["x" * 100_000], "at most 2,000 characters, got 100,000"),
        (["\udcff fox"], "lone surrogate U+DCFF at character 0"),
        ([FOX, "--candidates", "0"], "candidates must be between 1 and 4,096, got 0"),
        ([FOX, "--candidates", "2", "--keep", "3"], "keep must be between 1 and candidates (2)"),
        ([FOX, "--temperature", "-1"], "temperature must be between 0 (greedy) and 100"),
        ([FOX, "--temperature", "nan"], "--temperature must be a number, or null, got 'nan'"),
        ([FOX, "--top-p", "1.2"], "top_p must be in (0, 1], got 1.2"),
        ([FOX, "--seed", str(1 << 63)], "seed must be a whole number below 2^63"),
        ([FOX, "--temperature", ".nan"], "--temperature must be a finite number, got '.nan'"),
        ([FOX, "--seed", "1.5"], "--seed must be a whole number, got '1.5'"),
        ([FOX, "--device", "tpu"], "--device must be one of auto, cpu, cuda, got 'tpu'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_one_line_and_status_2(
    words: list[str], message: str, generate: Generate, tmp_path: Path
) -> None:
    status, out, err = generate(*words)
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"error: .*{re.escape(message)}.*\n", err), err
    assert len(err) < 400
    assert files(tmp_path) == []


def test_bad_captions_are_refused_without_loading_anything() -> None:
    """Whoever mistypes waits for no torch."""
    program = (
        "import sys; from dalle.cli import main; status = main(['generate', '']);"
        "sys.exit(10 * ('torch' in sys.modules or 'tokenizers' in sys.modules) + status)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True
    )
    assert run.returncode == 2, run.stderr


def damaged(tiny_model: Path, folder: Path, change: Callable[[bytes], bytes]) -> Path:
    """A copy of the tiny model whose weights were changed."""
    folder.mkdir()
    for path in tiny_model.iterdir():
        content = path.read_bytes()
        weights = path.name == "transformer.safetensors"
        (folder / path.name).write_bytes(change(content) if weights else content)
    return folder


def test_models_that_cannot_be_used_are_one_line_and_status_1(
    generate: Generate, tiny_model: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "gpt2"}')
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[Path | str, str]] = [
        ("no-such-model", "there is no model 'no-such-model'"),
        (empty, "is not a model folder"),
        (foreign, "config.json"),
        (damaged(tiny_model, tmp_path / "cut", lambda data: data[:-100]), "damaged"),
        (damaged(tiny_model, tmp_path / "flip", lambda data: data[:-1] + b"\x7f"), "damaged"),
    ]
    before = files(tmp_path)
    for model, message in cases:
        status, out, err = generate(FOX, model=model)
        assert (status, out) == (1, ""), model
        assert re.fullmatch(rf"error: .*{re.escape(message)}.*\n", err), err
    assert files(tmp_path) == before, "nothing is written, not even the output folder"


# ------------------------------------------------------------------------ where nothing can be put


def test_an_output_folder_that_cannot_be_written_is_found_before_the_work(
    generate: Generate, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    places = [file, file / "below"]
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if not os.access(locked, os.W_OK):  # the superuser may write anywhere
        places += [locked, locked / "below"]
    for place in places:
        # The model is not looked for: a bad folder must not cost the time of loading one.
        status, out, err = generate(FOX, "--out", str(place), model="no-such-model")
        assert (status, out) == (1, "")
        message = (
            rf"error: output folder {place} cannot be written \(.*\); give another with --out\n"
        )
        assert re.fullmatch(message, err), err
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_made_after_all_is_one_line(generate: Generate) -> None:
    place = Path("/proc/pictures")  # not even the superuser makes a folder there
    if not place.parent.is_dir():
        pytest.skip("needs a /proc file system")
    status, out, err = generate(FOX, "--candidates", "1", "--out", str(place))
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"error: .*{place}.* cannot be written \(.*\).*\n", err), err


@pytest.mark.parametrize(("limit", "pictures"), [(100, 0), (4000, 2)])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    limit: int, pictures: int, tiny_model: Path, tmp_path: Path
) -> None:
    """The limit on a file's size stands for a disk that fills up: in a picture, or in the sheet."""
    out = tmp_path / "out"
    run = subprocess.run(
        [sys.executable, "-B", "-m", "dalle", "generate", FOX, "--candidates", "2", "--json",
         "--model", str(tiny_model), "--out", str(out)],
        capture_output=True, text=True, check=False, cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, "")
    assert re.fullmatch(r"error: .*\.png cannot be written \(File too large\).*\n", run.stderr)
    written = list(out.iterdir())
    assert len(written) == pictures
    for path in written:
        assert read_recipe(path).caption == FOX
        assert len(pixels(path)) == 16 * 16 * 3


# ------------------------------------------------------------------------------------ image prompts


@pytest.fixture
def given(tmp_path: Path) -> Path:
    path = tmp_path / "given.png"
    Image.effect_noise((40, 20), 90).convert("RGB").save(path)
    return path


def test_a_given_picture_is_gone_on_from(generate: Generate, given: Path, tmp_path: Path) -> None:
    status, out, err = generate(
        FOX, "--image", str(given), "--keep-rows", "1", "--candidates", "3", "--json"
    )
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert (report["prompt"]["rows"], report["prompt"]["rows_in_all"]) == (1, 4)
    assert report["prompt"]["notes"], "40 x 20 px were cut to a square, which is said"
    recipes = [read_recipe(Path(image["file"])) for image in report["captions"][0]["images"]]
    assert len({recipe.prompt for recipe in recipes}) == 1
    assert len(recipes[0].prompt) == 4
    with Image.open(report["prompt"]["file"]) as shown_prompt:
        assert shown_prompt.width > shown_prompt.height
    again = tmp_path / "again"
    status, out, _ = generate(
        "--like", report["captions"][0]["images"][0]["file"], "--out", str(again), "--json"
    )
    assert status == 0
    redrawn = json.loads(out)["captions"][0]["images"][0]["file"]
    assert pixels(Path(redrawn)) == pixels(Path(report["captions"][0]["images"][0]["file"]))


def test_a_picture_is_completed_without_a_caption(generate: Generate, given: Path) -> None:
    status, out, _ = generate("--image", str(given), "--candidates", "2")
    assert status == 0
    assert out.startswith("(no caption) (best first by likelihood):")
    assert "kept 2 of 4 rows of tokens: " in out
    (sheet,) = re.findall(r"all together: (\S+)", out)
    with Image.open(sheet) as shown:
        assert shown.width == 4 * (128 + 8) + 8, "what was given, two completions, the original"


def test_variations_keep_the_first_rows(generate: Generate, tmp_path: Path) -> None:
    _, out, _ = generate(FOX, "--candidates", "1", "--seed", "3", "--json")
    first = Path(json.loads(out)["captions"][0]["images"][0]["file"])
    status, out, _ = generate(
        "--vary", str(first), "--keep-rows", "0.5", "--seed", "4", "--candidates", "3", "--json"
    )
    assert status == 0
    report = json.loads(out)
    assert "prompt" not in report
    (entry,) = report["captions"]
    assert entry["caption"] == FOX
    tokens = {read_recipe(Path(image["file"])).prompt for image in entry["images"]}
    assert {len(prompt) for prompt in tokens} == {8}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--keep-rows", "2", FOX], "keep_rows 2 says how much of a picture is kept"),
        (["--image", "GIVEN", "--keep-rows", "1.5"], "or a whole number of token rows, got 1.5"),
        (["--image", "GIVEN", "--keep-rows", "-1"], "keep_rows must be a part of the height"),
        (["--image", "GIVEN", "--keep-rows", "4"], "keep_rows must be"),
        (["--crop", "pad", FOX], "prompt_layout and crop say how --image is read"),
        (["--image", "GIVEN", "--like", "x.png"], "give one caption or several"),
        (["--image", "missing.png"], "missing.png"),
    ],
)
def test_bad_image_prompts_are_refused(
    words: list[str], message: str, generate: Generate, given: Path, tmp_path: Path
) -> None:
    status, out, err = generate(*[str(given) if word == "GIVEN" else word for word in words])
    assert status in (1, 2)
    assert out == ""
    assert message in err
    assert not (tmp_path / "out").exists()
