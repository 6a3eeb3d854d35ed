"""Who is let in: so many connections at once, and each that is refused is counted."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from aiohttp import web

from serve.client import Client, ServerError
from serve.guard import Guard, Listener
from tests.serve.lived import Scripted
from tests.serve.running import running, url


async def alive(link: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    """Whether a request on a connection is answered."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        link[1].write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(10):
            return bool(await link[0].readuntil(b"404: Not Found"))
    return False


def test_more_connections_than_may_be_are_cut_and_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        runner = web.AppRunner(web.Application(), access_log=None)
        await runner.setup()
        listener = Listener(runner, Guard(), most=3)
        port = await listener.start("127.0.0.1", 0)

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection("127.0.0.1", port)

        links = await asyncio.gather(*(connect() for _ in range(8)))
        living = [link for link in links if await alive(link)]
        assert len(living) == 3 and listener.cut == 5
        assert not await alive(await connect())
        assert [await alive(link) for link in living] == [True] * 3
        # Where one goes there is room for another.
        living[0][1].close()
        async with asyncio.timeout(10):
            while not await alive(late := await connect()):
                await asyncio.sleep(0.02)
        for _, writer in (*links, late):
            writer.close()
        await listener.stop()
        await runner.cleanup()

    asyncio.run(main())


class Broken(Scripted):
    """A model of which no state can be told."""

    @property
    def cache(self) -> float | None:  # type: ignore[override]
        raise LookupError("broken")

    @cache.setter
    def cache(self, value: float | None) -> None:
        pass


def test_whatever_is_refused_or_breaks_is_counted(tmp_path: Path) -> None:
    async def main() -> None:
        made = running(tmp_path, Broken(), guard=Guard("right"))
        async with made as server, Client(url(server), "right") as client:
            async with Client(url(server), "wrong") as other:
                for headers, status in (({}, 401), ({"Origin": "https://e.vil"}, 403)):
                    with pytest.raises(ServerError) as refused:
                        await other.call("GET", "/v1/sessions", headers=headers)
                    assert refused.value.status == status
            session = await client.open({"kind": "push"})
            with pytest.raises(ServerError) as broken:
                await session.state()
            assert broken.value.status == 500
            counted = (await client.bytes("/metrics")).decode()
            for route, status in (
                ("/v1/sessions", 401),
                ("/v1/sessions", 403),
                ("/v1/sessions/{session}", 500),
            ):
                line = f'joyvl_requests_total{{route="{route}",status="{status}"}} 1.0'
                assert line in counted
            await session.close()

    asyncio.run(main())
