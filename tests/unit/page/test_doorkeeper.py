from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

import pytest

from dalle.page.doorkeeper import HEADERS, Doorkeeper
from dalle.page.limits import Limits

Message = MutableMapping[str, Any]
LIMITS = Limits(upload_bytes=4 * 1024**2)
ENDPOINTS = {"generate": {"caption": True, "keep": False}}


async def answering(scope: Message, receive: Any, send: Any) -> None:
    """An app that reads the whole body and says how long it was."""
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/breaks":
        raise RuntimeError("a caption")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


def request(
    path: str = "/",
    *,
    method: str = "GET",
    host: str = "127.0.0.1:7860",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    parts: tuple[bytes, ...] = (b"",),
    hosts: tuple[str, ...] | None = ("127.0.0.1", "localhost"),
) -> tuple[int, bytes, dict[bytes, bytes]]:
    """Status, body and headers of the answer to one request."""
    door = Doorkeeper(answering, limits=LIMITS, hosts=hosts, endpoints=ENDPOINTS)
    scope: Message = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(b"host", host.encode()), *headers],
    }
    incoming = [
        {"type": "http.request", "body": part, "more_body": place + 1 < len(parts)}
        for place, part in enumerate(parts)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(door(scope, receive, send))
    start, *bodies = sent
    return start["status"], b"".join(body["body"] for body in bodies), dict(start["headers"])


def test_a_request_of_the_page_passes_with_headers_that_lock_it_in() -> None:
    status, body, headers = request(parts=(b"12", b"345"))
    assert (status, body) == (200, b"5")
    assert set(HEADERS) <= set(headers.items())
    assert b"default-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", ""])
def test_other_host_names_are_refused_while_only_this_machine_may_come_in(host: str) -> None:
    assert request(host=host)[0] == 421
    assert request(host=host, hosts=None)[0] == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (b"http://127.0.0.1:7860", 200),
        (b"http://127.0.0.1:9999", 403),
        (b"https://evil.example", 403),
        (b"null", 403),
    ],
)
def test_requests_from_other_sites_are_refused(origin: bytes, status: int) -> None:
    assert request(headers=((b"origin", origin),))[0] == status


def test_a_proxy_may_serve_the_page_by_its_name() -> None:
    """Bug: behind a proxy with a sign-in the page did not answer to the name that it has there."""
    name = "pictures.example.org"
    for site, status in ((name, 200), (f"{name}:8443", 403), ("evil.example", 403)):
        headers = ((b"origin", f"https://{site}".encode()),)
        assert request(host=name, headers=headers, hosts=("127.0.0.1", name))[0] == status


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("http://127.0.0.1:80/x", 403),
        ("HTTPS://evil.example/x", 403),
        ("https:/evil.example", 403),
        ("/tmp/gradio/fox.png", 200),
    ],
)
def test_files_of_other_hosts_are_not_fetched(name: str, status: int) -> None:
    assert request(f"/gradio_api/file={name}")[0] == status


@pytest.mark.parametrize("version", ["", "v2/"])
def test_unknown_endpoints_are_named(version: str) -> None:
    body = (b'{"caption": ', b'"a fox"}')
    known = request(f"/gradio_api/call/{version}generate", method="POST", parts=body)
    unknown = request(f"/gradio_api/call/{version}genrate", method="POST")
    assert known[:2] == (200, b"20"), "the body is there for the page as well"
    assert unknown[0] == 404
    assert b"there are generate" in unknown[1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", b"generate needs caption; it takes caption, keep"),
        (b'{"keep": 1}', b"generate needs caption"),
        (b'{"caption": "a", "nonsense": 3}', b"generate does not take 'nonsense'"),
    ],
)
def test_wrong_names_of_values_are_named(body: bytes, message: bytes) -> None:
    status, answer, _ = request("/gradio_api/call/v2/generate", method="POST", parts=(body,))
    assert status == 400
    assert message in answer


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("[", ()),
        ("127.0.0.1:7860", ((b"origin", b"http://["),)),
        ("127.0.0.1:7860", ((b"origin", b"http://[::1"),)),
        ("127.0.0.1:7860", ((b"content-length", b"9" * 5000),)),
    ],
)
@pytest.mark.parametrize("hosts", [("127.0.0.1",), None])
def test_headers_that_are_no_addresses_are_refused(
    host: str, headers: tuple[tuple[bytes, bytes], ...], hosts: tuple[str, ...] | None
) -> None:
    """Each such request once was an error of the server, with a traceback in its log."""
    assert request(host=host, headers=headers, hosts=hosts)[0] == 400


def test_a_body_is_as_long_as_it_may_be() -> None:
    stated = ((b"content-length", b"3000000"),)
    assert request("/gradio_api/queue/join", headers=stated)[0] == 413
    assert request("/gradio_api/upload", headers=stated)[0] == 200
    assert request(headers=((b"content-length", b"-1"),))[0] == 400
    endless = tuple(b"x" * 1024**2 for _ in range(3))
    assert request("/gradio_api/queue/join", parts=endless)[0] == 413
    assert request("/gradio_api/upload", parts=endless)[0] == 200


def test_what_breaks_is_answered_with_an_id_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status, body, _ = request("/breaks")
    assert status == 400
    assert b"fault" in body
    assert b"a caption" not in body
    assert "RuntimeError" in caplog.text
    assert "a caption" not in caplog.text
