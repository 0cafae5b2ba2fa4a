"""The page for programs: endpoints, their description, what they refuse."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.paths import ROOT
from tests.web.serving import RunningPage

if TYPE_CHECKING:
    from gradio_client import Client

FOX = ROOT / "dalle" / "page" / "examples" / "fox.png"
SNAPSHOT = Path(__file__).with_name("api.json")


@pytest.fixture(scope="module")
def client(server: RunningPage) -> Client:
    from gradio_client import Client

    return Client(server.url, verbose=False)


@pytest.fixture
def uploaded(needs_gradio: None) -> Any:
    from gradio_client import handle_file

    return handle_file(str(FOX))


def described(client: Client) -> dict[str, Any]:
    """Names, types and defaults of the endpoints; `label` tells what each parameter is."""
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert isinstance(endpoints, dict)
    kept = ("parameter_name", "parameter_has_default", "parameter_default", "label")
    return {
        name: {
            "description": endpoint["description"],
            "parameters": [
                {**{key: one[key] for key in kept}, "type": one["python_type"]["type"]}
                for one in endpoint["parameters"]
            ],
            "returns": [one["python_type"]["type"] for one in endpoint["returns"]],
        }
        for name, endpoint in endpoints["named_endpoints"].items()
    }


def test_the_endpoints_are_as_promised(client: Client) -> None:
    """They are public: a change here is a change for users, and belongs into the changelog."""
    found = described(client)
    assert found == json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    for endpoint in found.values():
        first, *others = endpoint["parameters"]
        assert not first["parameter_has_default"]
        assert all(one["parameter_has_default"] for one in others) or len(others) == 1


def test_generate_gives_ranked_files_with_settings(client: Client) -> None:
    answer = client.predict("two apples", candidates=3, keep=2, seed=4, api_name="/generate")
    assert answer["caption"] == "two apples"
    scores = [image["score"] for image in answer["images"]]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    with Image.open(answer["images"][0]["file"]) as image:
        assert json.loads(image.info["parameters"])["seed"] == 4


def test_up_to_four_pictures_are_kept_unless_said(client: Client) -> None:
    """Bug: two candidates were refused, as fewer than the four that nobody had asked to keep."""
    answer = client.predict("two apples", candidates=2, api_name="/generate")
    assert len(answer["images"]) == 2


def test_complete_transform_and_rank_take_uploads(client: Client, uploaded: Any) -> None:
    whole = client.predict(uploaded, candidates=1, keep=1, api_name="/complete")
    assert whole["caption"] == ""
    part = {"region": [0.5, 0.5, 1, 1], "caption": "a fox", "candidates": 1}
    answer = client.predict(uploaded, **part, api_name="/complete")
    with Image.open(answer["images"][0]["file"]) as image:
        assert json.loads(image.info["parameters"])["prompt"].count(-1) == 64
    sketch = client.predict(
        uploaded, to="sketch", subject="fox", candidates=1, keep=1, api_name="/transform"
    )
    assert sketch["caption"] == "the exact same fox on the top as a sketch on the bottom"
    ranked = client.predict([uploaded, uploaded], "a fox", api_name="/rank")
    assert [one["index"] for one in ranked] == [0, 1]
    assert ranked[0]["score"] == pytest.approx(ranked[1]["score"], abs=1e-5)


def readme_block(language: str, server: RunningPage) -> str:
    """The README's only block of a language, for this server and with few candidates."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (content,) = re.findall(rf"^```{language}\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert "http://127.0.0.1:7860" in content
    return str(content).replace("http://127.0.0.1:7860", server.url)


def test_the_readmes_program_runs(
    server: RunningPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(FOX, tmp_path / "fox.png")
    monkeypatch.chdir(tmp_path)
    program = readme_block("py", server).replace("candidates=16", "candidates=2")
    program = program.replace('subject="fox"', 'subject="fox", candidates=1, keep=1')
    names: dict[str, Any] = {}
    exec(compile(program, "README.md", "exec"), names)
    assert Path(names["best"]["file"]).is_file()


def test_the_readmes_curl_command_runs(server: RunningPage) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    script = readme_block("zsh", server)
    script = script.replace('"a fox"}', '"a fox", "candidates": 1, "keep": 1}')
    run = subprocess.run(
        ["sh", "-e", "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert "event: complete" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"caption": ""}, "a caption must not be empty"),
        ({"caption": "x" * 1001}, "at most 1,000 characters"),
        ({"caption": 7}, "a caption must be text"),
        ({"caption": "a fox", "candidates": 10**6}, "candidates must be"),
        ({"caption": "a fox", "temperature": "hot"}, "temperature must be a number"),
        ({"caption": "a fox", "seed": 2**70}, "seed must be"),
        ({"caption": "a fox", "ranker": "magic"}, "ranker must be"),
    ],
)
def test_wrong_values_are_named(client: Client, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        client.predict(**arguments, api_name="/generate")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "http://127.0.0.1:9/fox.png", "../../etc/passwd", "\x00", 7]
)
def test_only_uploads_are_opened(server: RunningPage, path: object) -> None:
    import httpx

    body = {"picture": {"path": path, "meta": {"_type": "gradio.FileData"}}}
    url = f"{server.url}/gradio_api/call/v2/complete"
    reply = httpx.post(url, json=body)
    if reply.status_code == 200:
        event = reply.json()["event_id"]
        answer = httpx.get(f"{server.url}/gradio_api/call/complete/{event}", timeout=60).text
        assert "event: error" in answer
        assert "root:" not in answer
    else:
        assert reply.status_code < 500


def test_the_log_holds_no_captions(server: RunningPage, client: Client) -> None:
    import httpx

    secret = "a very private caption"
    with pytest.raises(Exception, match="candidates"):
        client.predict(secret, candidates=0, api_name="/generate")
    short = httpx.post(f"{server.url}/gradio_api/call/generate", json={"data": [secret]}).json()
    httpx.get(f"{server.url}/gradio_api/call/generate/{short['event_id']}", timeout=60)
    assert secret not in server.log
