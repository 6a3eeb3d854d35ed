"""The API over real HTTP and WebSockets: sessions, events, resuming, limits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from joyvl_train.actions import Delegation, Response
from serve.bridge import Solved
from serve.client import Client, ServerError
from serve.openapi import EVENTS, described
from serve.sessions import Limits
from serve.sources import Sources
from tests.joyvl_train.videos import make_video
from tests.serve.lived import Scripted
from tests.serve.running import jpeg, running, url
from tests.serve.test_faults import free_port


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["kind"] for event in events]


def steps(events: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(e["second"], e["text"]) for e in events if e["kind"] == "step"]


async def stepped(session, count: int, seconds: float = 10.0) -> list[dict[str, Any]]:
    """The events, once so many seconds were answered."""
    async with asyncio.timeout(seconds):
        while len(steps(events := await session.after(0))) < count:
            await asyncio.sleep(0.02)
    return events


def test_frames_in_events_out(tmp_path: Path) -> None:
    async def main() -> None:
        model = Scripted({2: Response("A dog appeared.")})
        async with running(tmp_path, model) as server, Client(url(server)) as client:
            async with client.session({"kind": "push"}, pins=["Watch."], seed=3) as session:
                await session.say("Tell me when a dog appears.")
                for number in range(4):
                    await session.push(jpeg(), number)
                    await stepped(session, number + 1)
                events = await session.after(0)
                assert steps(events) == [(0, ""), (1, ""), (2, "A dog appeared."), (3, "")]
                assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
                state = await session.state()
                assert state["second"] == 3 and state["source"]["state"] == "live"
                assert "Watch." in state["memory"]
                picture = await client.bytes(f"{session.place}/frame")
                assert picture[:2] == b"\xff\xd8"
            with pytest.raises(ServerError) as gone:
                await session.state()
            assert gone.value.status == 404 and not model.streams

    asyncio.run(main())


def test_a_dropped_connection_goes_on_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as server, Client(url(server)) as client:
            session = await client.open({"kind": "push"})
            seen: list[dict[str, Any]] = []

            async def read() -> None:
                async for event in session.events(again=0.01):
                    seen.append(event)

            reading = asyncio.create_task(read())
            for number in range(3):
                await session.push(jpeg(), number)
                await stepped(session, number + 1)
            for socket in tuple(server._sockets):
                assert socket._req is not None and socket._req.transport is not None
                socket._req.transport.abort()
            for number in range(3, 6):
                await session.push(jpeg(), number)
                await stepped(session, number + 1)
            async with asyncio.timeout(10):
                while len(steps(seen)) < 6:
                    await asyncio.sleep(0.01)
            await session.close()
            await asyncio.wait_for(reading, 10)
            assert [e["seq"] for e in seen] == list(range(1, len(seen) + 1))
            assert kinds(seen)[-1] == "closed" and len(steps(seen)) == 6

    asyncio.run(main())


def test_who_comes_too_late_is_told_what_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        limits = Limits(events=3)
        async with running(tmp_path, limits=limits) as server, Client(url(server)) as client:
            session = await client.open({"kind": "push"})
            for number in range(6):
                await session.push(jpeg(), number)
                await asyncio.sleep(0.05)
            events = await session.after(1)
            assert kinds(events) == ["gap", "step", "step", "step"]
            assert events[0]["missed"] + 1 + 3 == events[-1]["seq"]
            await session.close()

    asyncio.run(main())


def test_commands_over_the_socket(tmp_path: Path) -> None:
    async def main() -> None:
        model = Scripted()
        async with running(tmp_path, model) as server, Client(url(server)) as client:
            session = await client.open({"kind": "push"})
            async with client.socket(f"{session.place}/socket") as socket:

                async def told(**command: Any) -> dict[str, Any]:
                    await socket.send_json(command)
                    return dict(await socket.receive_json(timeout=5))

                assert (await told(kind="query", text="Hi"))["kind"] == "query"
                assert (await told(kind="config", mode="aloof"))["mode"] == "aloof"
                assert (await told(kind="sync"))["state"]["mode"] == "aloof"
                assert (await told(kind="reset"))["kind"] == "reset"
                for command, wrong in (
                    ({"kind": "config", "mode": "loud"}, "there are default, aloof"),
                    ({"kind": "query", "text": " "}, "text is empty"),
                    ({"kind": "query", "text": 5}, "text is a text"),
                    ({"kind": "cancel", "task": 9}, "no such task"),
                    ({"kind": "fly"}, "there are query, config"),
                ):
                    answer = await told(**command)
                    assert answer["kind"] == "error" and wrong in answer["error"]
                for text in ("{", "[]", "[" * 100_000):
                    await socket.send_str(text)
                    assert (await socket.receive_json(timeout=5))["error"] == "no JSON object"
                await socket.send_bytes(jpeg())
                events = [await socket.receive_json(timeout=5) for _ in range(2)]
                assert kinds(events) == ["source", "step"]
                await socket.send_bytes(b"no picture")
                assert "no JPEG" in (await socket.receive_json(timeout=5))["error"]
            await session.close()

    asyncio.run(main())


class Solves:
    async def solve(self, task: Any) -> Solved:
        return Solved("Done.", b"<script>alert(1)</script>", "text/html; charset=utf-8")


def test_an_artifact_can_be_fetched_and_does_no_harm(tmp_path: Path) -> None:
    async def main() -> None:
        model = Scripted({0: Delegation("One moment.", "Write it.")})
        background = {"background": lambda log: Solves()}
        async with running(tmp_path, model, **background) as server, Client(url(server)) as client:
            session = await client.open({"kind": "push"})
            await session.push(jpeg(), 0)
            await stepped(session, 1)
            async with asyncio.timeout(5):
                while not (ready := [e for e in await session.after(0) if e.get("artifact")]):
                    await asyncio.sleep(0.02)
            place = ready[0]["artifact"]
            assert ready[0]["text"] == "Done." and place == f"{session.place}/artifacts/1"
            async with aiohttp.ClientSession() as http, http.get(url(server) + place) as answer:
                assert "sandbox" in answer.headers["Content-Security-Policy"]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert b"alert" in await answer.read()
            await session.close()
            with pytest.raises(ServerError):
                await client.bytes(place)
            assert not list((tmp_path / "kept").iterdir())

    asyncio.run(main())


class Waits:
    async def solve(self, task: Any) -> Solved:
        await asyncio.Event().wait()
        raise AssertionError("nobody waits for ever")


def test_an_empty_result_is_refused_and_its_task_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        model = Scripted({0: Delegation("One moment.", "17 times 23?")})
        background = {"background": lambda log: Waits()}
        async with running(tmp_path, model, **background) as server, Client(url(server)) as client:
            session = await client.open({"kind": "push"})
            await session.push(jpeg(), 0)
            await stepped(session, 1)
            for digest in ("", " \n"):
                with pytest.raises(ServerError, match="digest is empty") as refused:
                    await session.give(1, digest)
                assert refused.value.status == 400
            await session.give(1, "391")
            states = [e["state"] for e in await session.after(0) if e["kind"] == "task"]
            assert states == ["started", "ready"]
            await session.close()

    asyncio.run(main())


def test_a_file_is_watched_as_fast_as_it_can_be(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", [k / 5 for k in range(30)])

    async def main() -> None:
        sources = Sources(videos=tmp_path)
        async with running(tmp_path, sources=sources) as server, Client(url(server)) as client:
            session = await client.open({"kind": "file", "name": "v.mp4", "paced": False})
            events = await stepped(session, 6)
            assert [second for second, _ in steps(events)] == list(range(6))
            async with asyncio.timeout(5):
                while "ended" not in [e.get("state") for e in await session.after(0)]:
                    await asyncio.sleep(0.02)
            await session.close()

    asyncio.run(main())


def test_a_server_that_is_not_there_is_told_as_any_refusal() -> None:
    async def main() -> None:
        async with Client(f"http://127.0.0.1:{free_port()}") as client:
            for asked in (client.open({"kind": "push"}), client.bytes("/metrics")):
                with pytest.raises(ServerError, match=r"gives no answer \(.*\); is it") as gone:
                    await asked
                assert gone.value.status == 0

    asyncio.run(main())


def test_sessions_are_limited_idle_ones_close_and_a_server_drains(tmp_path: Path) -> None:
    async def main() -> None:
        limits = Limits(sessions=2, idle=0.05, kept=0.0)
        async with running(tmp_path, limits=limits) as server, Client(url(server)) as client:
            first = await client.open({"kind": "push"})
            await client.open({"kind": "push"})
            with pytest.raises(ServerError, match="2 sessions are open already") as full:
                await client.open({"kind": "push"})
            assert full.value.status == 429
            await asyncio.sleep(0.1)
            await server.sessions.sweep()
            assert len(server.sessions) == 0
            assert kinds(await first.after(0))[-1] == "closed"
            await server.sessions.sweep()
            server.sessions.draining = True
            with pytest.raises(ServerError, match="stopping") as draining:
                await client.open({"kind": "push"})
            assert draining.value.status == 503

    asyncio.run(main())


def test_what_is_counted_can_be_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as server, Client(url(server)) as client:
            session = await client.open({"kind": "push"})
            await session.push(jpeg(), 0)
            await stepped(session, 1)
            text = (await client.bytes("/metrics")).decode()
            assert "joyvl_sessions 1.0" in text and 'joyvl_events_total{kind="step"} 1.0' in text
            assert session.name not in text
            await session.close()
            text = (await client.bytes("/metrics")).decode()
            assert "joyvl_sessions 0.0" in text and 'joyvl_events_total{kind="step"} 1.0' in text

    asyncio.run(main())


def test_the_description_tells_of_every_route_and_event(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as server:
            told = {
                (method.upper(), path)
                for path, item in described()["paths"].items()
                for method in item
                if method != "parameters"
            }
            routes = {
                (route.method, route.resource.canonical)
                for route in server._runner.app.router.routes()
                if route.method != "HEAD" and route.resource is not None
            }
            assert told == {(m, p) for m, p in routes if not p.startswith("/{file")}

    asyncio.run(main())
    folder = Path(__file__).parents[2] / "serve"
    source = "".join((folder / f"{n}.py").read_text() for n in ("live", "sessions", "solvers"))
    for kind in EVENTS:
        assert f'"{kind}"' in source or kind == "gap"
