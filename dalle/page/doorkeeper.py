"""What stands between the network and the page: which requests pass, and with which headers.

An ASGI middleware. It refuses what Gradio would answer but this page never asks for: foreign
origins, foreign host names while only this machine may come in, fetching from other hosts, bodies
without end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dalle.page.exports import NO_ROOM, bytes_in
from dalle.page.faults import fault_id
from dalle.page.limits import Limits

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
CALLS = "/gradio_api/call/"
UNUSED = re.compile(
    r"/gradio_api/(process_recording|vibe-|undo-vibe-edit|deep_link|run-history|proxy=)"
)
"""What Gradio offers and this page has no use for: it starts programs, writes files, or fetches."""
FORM_OVERHEAD_BYTES = 64 * 1024
"""What a form adds to the file in it."""
_MAX_DIGITS = 20
"""Digits of a length; Python itself refuses to read thousands of them."""
MAX_BODY_BYTES = 2 * 1024**2
"""Largest body of a request that carries no file."""
# Gradio's frontend builds functions from text and sets inline styles; nothing else is let in, least
# of all from another host.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "media-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Doorkeeper:
    """Lets requests through to `app`, or not.

    Args:
        app: The page.
        limits: The page's limits.
        hosts: Names that the page may be asked by; None for any.
        endpoints: Names that `/call/` knows, and of each the values that it takes by name: True for
            those that must be given.
        folder: Where uploads are kept; None where nobody counts them.
        is_awaited: Whether the answer of an event, by its number, is still to be read.
    """

    def __init__(
        self,
        app: App,
        *,
        limits: Limits,
        hosts: tuple[str, ...] | None,
        endpoints: Mapping[str, Mapping[str, bool]],
        folder: Path | None = None,
        is_awaited: Callable[[str], bool] = lambda _event: True,
    ) -> None:
        self._app = app
        self._limits = limits
        self._hosts = hosts
        self._endpoints = endpoints
        self._folder = folder
        self._is_awaited = is_awaited

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        refusal = await self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        meter = _Meter(receive, send, self._largest(scope["path"]))
        try:
            if wrong := await self._wrong_names(scope, meter):
                await _answer(send, 400, wrong)
                return
            await self._app(scope, meter.receive, meter.send)
            await meter.send_held()
        except _TooLargeError:
            pass  # the meter knows; it may also have become an answer of Gradio's
        except Exception as err:  # noqa: BLE001 - the last door: whatever it is ends here
            status = getattr(err.__cause__, "status_code", None)  # of what Starlette wraps
            if meter.began and status == HTTPStatus.NOT_FOUND:
                # A browser asks for its session after a restart, and has just been told.
                await meter.send({"type": "http.response.body", "body": b""})
                return
            found = fault_id()
            log.error("fault %s while answering a request: %s", found, type(err).__name__)
            if not meter.began and not meter.is_over:
                # Whatever a stranger's request breaks in Gradio is the request's fault.
                await _answer(send, 400, f"the request could not be understood, fault {found}")
        if meter.is_over and not meter.began:
            await _answer(send, 413, "the request is too large")

    async def _refusal(self, scope: Message, headers: dict[bytes, str]) -> tuple[int, str] | None:
        """Status and reason of a request that is refused at once; None if it may pass."""
        if wrong := self._wrong_headers(scope["path"], headers):
            return wrong
        # Going through a folder of thousands of files would keep everybody else waiting.
        if _is_upload(scope["path"]) and await asyncio.to_thread(self._is_full):
            return 507, NO_ROOM
        return self._wrong_address(scope["method"], unquote(scope["path"]))

    def _wrong_headers(self, path: str, headers: dict[bytes, str]) -> tuple[int, str] | None:
        """Status and reason where the request comes from elsewhere, or announces too much."""
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        try:
            name, site = _name(host), None if origin is None else urlsplit(origin).netloc
        except ValueError:
            return 400, "host and origin must be addresses"
        if self._hosts is not None and name not in self._hosts:
            return 421, "this page is not served under that host name"
        if site is not None and site != host:
            return 403, "requests from other sites are refused"
        length = headers.get(b"content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < _MAX_DIGITS):
            return 400, "content-length must be a whole number"
        if int(length) > self._largest(path):
            return 413, "the request is too large"
        return None

    def _wrong_address(self, method: str, path: str) -> tuple[int, str] | None:
        """Status and reason where Gradio would fetch from elsewhere, or stumble."""
        _, found, name = path.partition("/file=")
        if found and re.match(r"[a-z][a-z0-9+.-]*:/", name.lstrip().lower()):
            return 403, "files of other hosts are not fetched"
        if UNUSED.match(path):
            return 404, "there is nothing here"
        if method == "POST" and path.startswith(CALLS):
            name = path.removeprefix(CALLS).removeprefix("v2/").strip("/")
            if name not in self._endpoints:
                known = ", ".join(sorted(self._endpoints))
                return 404, f"there is no such endpoint; there are {known}"
        # Of such an event Gradio breaks its answer off, or sends signs of life without end.
        if method == "GET" and path.startswith(CALLS):
            event = path.rstrip("/").rpartition("/")[2]
            if not self._is_awaited(event):
                return 404, "there is no such event, or its answer has been read; call once more"
        return None

    async def _wrong_names(self, scope: Message, meter: _Meter) -> str:
        """What is wrong with the names of the values that a call gives; empty if nothing is.

        Gradio would stumble over them without a word about which.
        """
        _, is_call, rest = unquote(scope["path"]).partition(f"{CALLS}v2/")
        endpoint = rest.strip("/")
        takes = self._endpoints.get(endpoint)
        if scope["method"] != "POST" or not is_call or takes is None:
            return ""
        try:
            given = json.loads(await meter.read_ahead())
        except (ValueError, RecursionError):
            return ""  # which Gradio answers
        if not isinstance(given, dict):
            return ""
        unknown = [name for name in given if name not in takes]
        missing = [name for name, is_needed in takes.items() if is_needed and name not in given]
        if not unknown and not missing:
            return ""
        wrong = f"does not take {unknown[0]!r:.60}" if unknown else f"needs {missing[0]}"
        return f"{endpoint} {wrong}; it takes {', '.join(takes)}"

    def _largest(self, path: str) -> int:
        if _is_upload(path):
            return self._limits.upload_bytes + FORM_OVERHEAD_BYTES
        return MAX_BODY_BYTES

    def _is_full(self) -> bool:
        """Whether strangers have filled the folder; Gradio empties it of what is old."""
        return self._folder is not None and bytes_in(self._folder) >= self._limits.received_bytes


class _TooLargeError(Exception):
    """A body without a stated length has gone on for too long."""


class _Meter:
    """Counts what comes in, marks what goes out."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive = receive
        self._send = send
        self._left = most
        self._ahead: list[Message] = []
        self._held: list[Message] = []
        self.began = False
        self.is_over = False
        """Whether more came in than may."""

    async def read_ahead(self) -> bytes:
        """The whole body, which `receive` will hand out nevertheless.

        Raises:
            _TooLargeError: There is more of it than may come in.
        """
        read: list[Message] = []
        while not read or (read[-1]["type"] == "http.request" and read[-1].get("more_body")):
            read.append(await self.receive())
        self._ahead = read
        return b"".join(message.get("body", b"") for message in read)

    async def receive(self) -> Message:
        if self._ahead:
            return self._ahead.pop(0)
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.is_over = True
            raise _TooLargeError
        return message

    async def send(self, message: Message) -> None:
        if self.is_over and not self.began:
            return  # Gradio takes the body's end for a mistake in it; who sent it hears the truth
        # Starlette says 500 before it hands on the exception that tells why.
        if self._held or message.get("status") == HTTPStatus.INTERNAL_SERVER_ERROR:
            self._held.append(message)
            return
        await self._pass_on(message)

    async def send_held(self) -> None:
        """Send what was held back, as no exception came after it."""
        for message in self._held:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began = True
            # Gradio leaves none of these behind, so nothing is set twice.
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await self._send(message)


def _is_upload(path: str) -> bool:
    return path.rstrip("/").endswith("/upload")


def _name(host: str) -> str:
    """The host name in a Host header, without port and brackets."""
    return (urlsplit(f"//{host}").hostname or "") if host else ""


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *HEADERS,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
