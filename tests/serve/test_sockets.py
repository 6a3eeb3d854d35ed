"""WebSockets to the end: of sessions that are over, and of clients that don't read."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from serve.client import Client, ServerError, Session
from serve.sessions import Limits
from tests.serve.running import jpeg, running, url


async def all_of(session: Session) -> list[str]:
    async with asyncio.timeout(10):
        return [event["kind"] async for event in session.events(again=0.01)]


def test_a_session_that_has_ended_tells_what_was_left_and_takes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as server, Client(url(server)) as client:
            session = await client.open({"kind": "push"})
            await session.say("Hi")
            async with client.socket(f"{session.place}/socket?after=1") as socket:
                found = server.sessions.get(session.name)
                found.ended = 1.0  # as while the model still answers a second
                for send in (
                    socket.send_json({"kind": "reset"}),
                    socket.send_json({"kind": "query", "text": "And?"}),
                    socket.send_bytes(jpeg()),
                ):
                    await send
                    told = await socket.receive_json(timeout=5)
                    assert told == {"kind": "error", "error": "the session has ended"}
                found.ended = None
            await server.sessions.close_one(session.name, "nobody was there")
            assert await all_of(session) == ["query", "source", "closed"]
            # Who has seen all of it is told that there will be no more.
            assert await all_of(session) == []
            await server.sessions.drop(session.name)
            with pytest.raises(ServerError, match="gone"):
                await all_of(session)

    asyncio.run(main())


@pytest.mark.parametrize("told", ["events", "errors"])
def test_who_pushes_and_never_reads_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setattr("serve.server.WAIT", 0.5)
    left: list[str] = []

    async def main() -> None:
        # What nobody sees to, such as the error of a task.
        asyncio.get_running_loop().set_exception_handler(lambda _, it: left.append(it["message"]))
        limits = Limits(pushes=1_000_000)
        async with running(tmp_path, limits=limits) as server, Client(url(server)) as client:
            session = await client.open({"kind": "push"})
            found = server.sessions.get(session.name)
            http = aiohttp.ClientSession()
            socket = await http.ws_connect(f"{url(server)}{session.place}/socket")
            if told == "events":
                for _ in range(20):  # more than all buffers on the way hold
                    found.live.note("late", second=0, text="x" * 1_000_000)
            # It reads by itself until its own buffer is full, and then no more.
            async with asyncio.timeout(20):
                while server._sockets:
                    with contextlib.suppress(ConnectionError):
                        if told == "events":
                            await socket.send_bytes(jpeg())
                        else:
                            for _ in range(2000):
                                await socket.send_str('{"kind": "no such command"}')
                    await asyncio.sleep(0.01)
            gc.collect()
            assert not left and not found.followers
            await http.close()
            await session.close()

    asyncio.run(main())


def test_a_server_that_is_not_there_gives_no_socket_and_is_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as server, Client(url(server)) as client:
            gone = Session(client, "gone")
            with pytest.raises(ServerError, match="no WebSocket") as refused:
                async with client.socket(f"{gone.place}/socket"):
                    pass
            assert refused.value.status == 404
            session = await client.open({"kind": "push"})
        async with Client(url(server)) as client:  # it has stopped
            session = Session(client, session.name)
            with pytest.raises(ServerError, match="gives no answer .*; is it running") as refused:
                async with client.socket(f"{session.place}/socket"):
                    pass
            assert refused.value.status == 0
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(session.events(again=0.01)), 0.3)

    asyncio.run(main())


def test_an_answer_may_come_in_pieces_or_be_no_json() -> None:
    async def pieces(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        for part in (b'{"sess', b'ion": "one"}'):
            await answer.write(part)
        return answer

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<h1>no</h1>", status=int(request.query["status"]))

    async def nothing(request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/sessions", pieces)
        app.router.add_get("/page", page)
        app.router.add_get("/nothing", nothing)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port: Any = runner.addresses[0][1]
        async with Client(f"http://127.0.0.1:{port}") as client:
            assert (await client.open({"kind": "push"})).name == "one"
            assert await client.call("GET", "/nothing") == {}
            for status, why in ((502, "Bad Gateway"), (200, "no JSON")):
                with pytest.raises(ServerError, match=why) as refused:
                    await client.call("GET", f"/page?status={status}")
                assert refused.value.status == status
        await runner.cleanup()

    asyncio.run(main())
