"""Requests that mean harm, or are nonsense: refused in words, and nothing of the machine shown."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.paths import ROOT
from tests.web.serving import RunningPage, call, http_client, running_page

FOX = ROOT / "dalle" / "page" / "examples" / "fox.png"
ONE = {"caption": "a fox", "candidates": 1, "keep": 1}
AT_ONCE = 4
"""Requests that wait for their answers at the same time, fewer than the page lets in."""
LEAKS = re.compile(
    r"root:[x*]:|Traceback|site-packages|\.py\b|OMP_NUM_THREADS|" + re.escape(str(ROOT))
)
"""What no answer may hold: a password file, an environment, traces, paths of the code."""


@pytest.fixture(scope="module")
def page(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, needs_gradio: None
) -> Iterator[RunningPage]:
    folder = tmp_path_factory.mktemp("hostile")
    with running_page(folder, "--model", str(tiny_model)) as running:
        running.wait_for_model()
        yield running
    left = {path.name for path in folder.iterdir()}
    assert left == {"page.out", "page.err"}, "all files go with the server"


@pytest.fixture(scope="module")
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """An address on this machine that nobody should ask, and what it has been asked."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed
                    return
                with connection:
                    heard.append(connection.recv(200))

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/fox.png", heard
        server.shutdown(socket.SHUT_RDWR)


def get(page: RunningPage, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of an answer; `path` is sent as it is, not made canonical."""
    place = urlsplit(page.url).netloc
    connection = http.client.HTTPConnection(place, timeout=30)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in {"Host": place, **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode("utf-8", "replace")
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


def upload(page: RunningPage, name: str, content: bytes, mime: str) -> Any:
    files = {"files": (name, content, mime)}
    return http_client().post(f"{page.url}/gradio_api/upload", files=files, timeout=30)


def file_at(path: object) -> dict[str, object]:
    return {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}


def press(page: RunningPage, event: int, values: list[Any]) -> str:
    """What the page answers where a browser would press a button: its last message."""
    session = uuid.uuid4().hex
    body = {"data": values, "fn_index": event, "session_hash": session, "event_data": {}}
    headers = {"content-type": "application/json", "x-forwarded-for": "10.3.0.1"}
    queue = f"{page.url}/gradio_api/queue"
    joined = http_client().post(
        f"{queue}/join", content=json.dumps(body), headers=headers, timeout=30
    )
    if joined.status_code != 200:
        assert joined.status_code < 500
        return joined.text
    with http_client().stream("GET", f"{queue}/data?session_hash={session}", timeout=60) as lines:
        for line in lines.iter_lines():
            if re.search(r'"msg": ?"(process_completed|unexpected_error|close_stream)"', line):
                return line
    raise AssertionError("the page ended its answer without a result")


def test_no_file_of_the_machine_is_served(
    page: RunningPage, listener: tuple[str, list[bytes]]
) -> None:
    address, heard = listener
    paths = [
        *("/etc/passwd", "//etc/passwd", "../../../../../../etc/passwd", "/proc/self/environ"),
        *("..%2f..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "app.py", str(ROOT / "app.py")),
        *(
            "file:///etc/passwd",
            address,
            address.replace("/", "%2f"),
            str(page.folder / "page.err"),
        ),
    ]
    for route, path in itertools.product(("/gradio_api/file=", "/gradio_api/proxy="), paths):
        status, _, text = get(page, route + path)
        assert status in {400, 403, 404}, route + path
        echoed = unquote(path).lstrip("/")  # a refusal says what it refuses
        assert not LEAKS.search(text.replace(echoed, "")), route + path
    for route, path in itertools.product(("/static/", "/assets/", "/svelte/"), paths):
        status, _, text = get(page, route + path)
        assert status < 500
        assert not re.search("root:[x*]:|OMP_NUM_THREADS|from dalle", text), route + path
    assert not heard, "addresses are not asked"


def test_a_file_that_a_request_names_is_not_taken_for_an_upload(
    page: RunningPage, listener: tuple[str, list[bytes]]
) -> None:
    """Gradio once copied it into its own folder, told where, and served it from there."""
    address, heard = listener
    events = json.loads(get(page, "/config")[2])["dependencies"]
    folder = next(page.folder.glob("dalle-page-*"))
    before = {path.name for path in folder.iterdir()}
    wrong = ("/etc/passwd", address, f"{page.url}/gradio_api/file=/etc/passwd")

    def answered(event: dict[str, Any]) -> str:
        # One wrong file for each event, in turn: every event goes through the same door.
        path = wrong[event["id"] % len(wrong)]
        return press(page, event["id"], [file_at(path)] * len(event["inputs"]))

    with ThreadPoolExecutor(AT_ONCE) as people:
        for event, answer in zip(events, people.map(answered, events), strict=True):
            assert not LEAKS.search(answer)
            if event["inputs"]:
                assert "a file must be uploaded to this page first" in answer
    copied = {path.name for path in folder.iterdir()} - before
    assert not [name for name in copied if (folder / name / "passwd").exists()]
    assert not heard, "addresses are not asked"


def test_other_sites_and_host_names_are_refused(page: RunningPage) -> None:
    status, headers, _ = get(page, "/config", Origin="https://evil.example")
    assert status == 403
    assert "access-control-allow-origin" not in headers
    status, headers, _ = get(page, "/config", Host="evil.example")
    assert status == 421
    assert "access-control-allow-origin" not in headers
    assert get(page, "/config", Origin=page.url)[0] == 200


@pytest.mark.parametrize(
    ("name", "content", "mime"),
    [
        ("page.html", b"<script>alert(1)</script>", "text/html"),
        ("drawing.svg", b'<svg onload="alert(1)" xmlns="x"/>', "image/svg+xml"),
        ("page.png", b"<script>alert(1)</script>", "image/png"),
    ],
)  # fmt: skip
def test_what_is_no_picture_never_runs_and_is_never_opened(
    page: RunningPage, name: str, content: bytes, mime: str
) -> None:
    (path,) = upload(page, name, content, mime).json()
    status, headers, _ = get(page, f"/gradio_api/file={path}")
    assert status == 200
    assert headers["x-content-type-options"] == "nosniff"
    if headers["content-type"] != "image/png":  # which a browser shows as a broken picture
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"].startswith("attachment")
    body = {"picture": file_at(path), "candidates": 1, "keep": 1}
    answer = call(page, "complete", body, client="10.3.1.1")
    assert "not PNG, JPEG or WebP" in answer


def test_an_answer_does_not_tell_where_an_upload_is_kept(page: RunningPage) -> None:
    """Whoever swapped the two was once told."""
    (path,) = upload(page, "fox.png", FOX.read_bytes(), "image/png").json()
    swapped = {"pictures": "a fox", "caption": [file_at(path)]}
    answer = call(page, "rank", swapped, client="10.3.2.1")
    assert "a caption must be text, got a list" in answer
    assert str(page.folder) not in answer


def test_an_answer_can_be_read_once_and_that_is_said(page: RunningPage) -> None:
    """Gradio broke an unknown event's answer off, and a second reader waited for ever."""
    calls = f"{page.url}/gradio_api/call"
    headers = {"x-forwarded-for": "10.3.3.1"}
    event = http_client().post(f"{calls}/v2/generate", json=ONE, headers=headers).json()["event_id"]
    first = http_client().get(f"{calls}/generate/{event}", headers=headers)
    assert "event: complete" in first.text
    for read in (event, "0" * 32):
        status, _, text = get(page, f"/gradio_api/call/generate/{read}")
        assert status == 404
        assert "no such event, or its answer has been read" in text
    faults = page.log.count("fault")
    _, _, text = get(page, "/gradio_api/queue/data?session_hash=of-before-a-restart")
    assert '"session_not_found":true' in text
    assert page.log.count("fault") == faults


def test_uploads_without_end_are_refused(page: RunningPage) -> None:
    answer = upload(page, "large.png", bytes(21 * 1024**2), "image/png")
    assert answer.status_code == 413


def fuzzed() -> list[tuple[str, dict[str, Any]]]:
    """Calls that no honest program makes, for every endpoint and every kind of wrong value."""
    deep: Any = "end"
    for _ in range(200):
        deep = [{"a": deep}]
    picture = file_at("/etc/passwd")
    nonsense: list[Any] = [
        None, -1, 2**70, math.nan, "", "x" * 100_000, "\ud800", "<script>", {}, deep, picture,
        file_at("http://127.0.0.1:9/a.png"), {"path": 7, "meta": {"_type": "gradio.FileData"}},
    ]  # fmt: skip
    calls: list[tuple[str, dict[str, Any]]] = []
    for value in nonsense:
        calls += [
            ("generate", {**ONE, "caption": value, "temperature": value}),
            ("generate", {**ONE, "candidates": value, "seed": value, "ranker": value}),
            ("complete", {"picture": value, "keep_rows": value, "layout": value}),
            ("transform", {"picture": picture, "to": value, "subject": value}),
            ("rank", {"pictures": value, "caption": value}),
        ]
    return calls


def test_nonsense_is_answered_in_words(page: RunningPage) -> None:
    def answered(asked: tuple[int, tuple[str, dict[str, Any]]]) -> str:
        number, (endpoint, body) = asked
        return call(page, endpoint, body, client=f"10.4.0.{number}")

    calls = fuzzed()
    with ThreadPoolExecutor(AT_ONCE) as people:
        answers = list(people.map(answered, enumerate(calls)))
    for (endpoint, _), answer in zip(calls, answers, strict=True):
        assert not LEAKS.search(answer), (endpoint, answer[:300])
        assert str(page.folder) not in answer or "event: complete" in answer
        assert "event: complete" in answer or "error" in answer or "detail" in answer
        assert "too many people" not in answer
    assert page.process.status is None
    assert "event: complete" in call(page, "generate", ONE, client="10.4.1.1")


def test_a_fault_inside_shows_an_id_and_logs_its_place_but_no_caption(page: RunningPage) -> None:
    """Here the folder of results has gone, whose path the error's text tells."""
    (folder,) = page.folder.glob("dalle-page-*/results")
    away = folder.with_name("away")
    secret = "a very private caption"
    folder.rename(away)
    try:
        answer = call(page, "generate", {**ONE, "caption": secret}, client="10.5.0.1")
    finally:
        away.rename(folder)
    assert "event: error" in answer
    assert str(folder.parent) not in answer
    found = re.search(r"Something went wrong on the server, fault ([0-9a-f]{8})", answer)
    assert found is not None
    log = page.log
    place = log.index(f"fault {found[1]}")
    assert re.search(r"FileNotFoundError\n.*exports\.py", log[place:], re.DOTALL)
    assert secret not in log
    assert "event: complete" in call(page, "generate", ONE, client="10.5.0.1")
