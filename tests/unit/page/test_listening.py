"""The socket that the page listens on."""

from __future__ import annotations

import asyncio
import socket

import pytest

from dalle.errors import DalleError
from dalle.page.serve import _listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_an_answer_is_not_held_back(host: str) -> None:
    """Heads and bodies are written apart; a body must not wait until its head is acknowledged."""
    try:
        listener = _listen(host, 0)
    except DalleError as err:
        pytest.skip(f"this machine has no such address: {err}")

    async def is_sent_at_once() -> bool:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def visited(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            found.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(visited, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            writer.close()
            return bool(await found)

    assert asyncio.run(is_sent_at_once())


@pytest.mark.parametrize("host", ["a..b", ".", "x" * 64 + ".example"])
def test_a_host_that_is_none_is_named_with_the_remedy(host: str) -> None:
    """It once was a message about a codec."""
    with pytest.raises(DalleError, match=r"^--host '.*' is no name of a machine; give an address"):
        _listen(host, 0)
