"""The page in a real browser: it plays, is asked, tells alerts, opens artifacts, sends a camera."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from joyvl_train.actions import Delegation, Response
from recipes._sample import sample
from serve.events import EventLog
from serve.guard import Guard
from serve.sessions import Limits
from serve.solvers import RunCommand
from serve.source import Notice, Second
from serve.sources import Sources
from serve.webrtc import WebRtc
from tests.chromium import BINARY, Page, opened
from tests.joyvl_train.videos import make_video
from tests.serve.lived import Scripted, second
from tests.serve.running import running, url

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no Chromium on this machine"),
]

CAMERA = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--allow-loopback-in-peer-connection",
)
MAKES = (
    "import json; told = json.load(open('task.json'));"
    "open('artifact.html', 'w').write('<h1>' + told['question'] + '</h1>'"
    "    '<script>top.hacked = 1</script>');"
    "print('It is 391.')"
)


STATUS = "document.getElementById('status').innerText"


async def becomes(page: Page, script: str, wanted: Callable[[Any], bool], seconds: int = 30) -> Any:
    """The value of an expression in the page once it is as wanted."""
    found = None
    for _ in range(5 * seconds):
        found = await page.run(script)
        if wanted(found):
            return found
        await asyncio.sleep(0.2)
    raise AssertionError(f"{script} stays {found!r}")


def said(text: str) -> tuple[str, Callable[[Any], bool]]:
    return "document.getElementById('said').innerText", lambda found: text in found


def test_the_page_watches_hears_and_shows_what_was_made(tmp_path: Path) -> None:
    actions = {
        1: Response("A ball appeared."),
        2: Delegation("I will work it out.", "17 times 23?"),
        6: Response("<b>It is 391.</b>"),
    }
    model = Scripted(actions)  # type: ignore[arg-type]

    def solver(log: EventLog) -> RunCommand:
        return RunCommand([sys.executable, "-c", MAKES])

    async def main() -> None:
        sources = Sources(sample=partial(sample, side=192))
        made = running(tmp_path, model, sources=sources, background=solver)
        async with made as server, opened(f"{url(server)}/", tmp_path) as page:
            # Nobody touched it: the sample plays, and the model speaks.
            await becomes(page, *said("A ball appeared."))
            await becomes(page, "document.getElementById('picture').naturalWidth", lambda n: n > 0)
            await becomes(
                page, "document.getElementById('tasks').innerText", lambda t: "It is 391." in t
            )
            await page.run("document.querySelector('.artifact').click()")
            made_ = await becomes(
                page, "document.querySelector('#tasks iframe')?.srcdoc || ''", bool
            )
            assert "<h1>17 times 23?</h1>" in made_
            # What was made is shown apart: its scripts don't run, and what is said is no HTML.
            await becomes(page, *said("<b>It is 391.</b>"))
            assert await page.run("window.hacked === undefined") is True
            assert await page.run("document.querySelectorAll('#said b').length") == 0

            await page.run("document.getElementById('text').value = 'What do you see?'")
            await page.run("document.getElementById('ask').requestSubmit()")
            await becomes(page, *said("What do you see?"))
            # The sample itself asks at its beginning; the user's question reached the model, too.
            await becomes(page, "1", lambda _: ("What do you see?",) in model.prompts)
            await page.run(
                "(m => { m.value = 'aloof'; m.dispatchEvent(new Event('change')); })"
                "(document.getElementById('mode'))"
            )
            await becomes(page, "1", lambda _: set(model.biases.values()) == {2.0})
            tiers = await becomes(page, "document.getElementById('tiers').innerText", bool)
            assert "chunk 1" in tiers
            strip = "[...document.querySelectorAll('#strip li')].map(item => item.className)"
            cells = await page.run(strip)
            assert cells[1].startswith("response") and cells[2].startswith("delegation")
            assert any("query" in cell for cell in cells)

            await page.run("document.getElementById('reset').click()")
            await becomes(page, *said("All is forgotten"))
            assert not said("What do you see?")[1](await page.run(said("")[0]))
            await page.run("document.getElementById('stop').click()")
            await becomes(page, STATUS, "stopped".__eq__)
            await becomes(page, "1", lambda _: not model.streams)
            # No picture and no measure of what is over stays.
            await asyncio.sleep(1.5)
            assert await page.run("document.getElementById('picture').hidden") is True
            shown = "[...document.querySelectorAll('#measures dd')].map(each => each.innerText)"
            assert set(await page.run(shown)) == {"–", "0"}

    asyncio.run(main())


def test_a_video_is_chosen_and_what_can_not_be_opened_stops_nothing(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("door.mp4", "gone.mp4"):
        make_video(videos / name, [k / 5 for k in range(100)])

    def choose(name: str) -> str:
        return (
            "(s => { s.value = 'file'; s.dispatchEvent(new Event('change')); })"
            "(document.getElementById('source'));"
            f"document.getElementById('file').value = '{name}';"
            "document.getElementById('start').click()"
        )

    async def main() -> None:
        model = Scripted()
        sources = Sources(sample=partial(sample, side=96), videos=videos)
        async with (
            running(tmp_path, model, sources=sources, limits=Limits(sessions=1)) as server,
            opened(f"{url(server)}/", tmp_path) as page,
        ):
            await becomes(page, STATUS, "live".__eq__)
            ((first, _),) = server.sessions
            listed = "[...document.getElementById('file').options].map(each => each.value)"
            assert await page.run(listed) == ["door.mp4", "gone.mp4"]
            (videos / "gone.mp4").unlink()
            await page.run(choose("gone.mp4"))
            await becomes(page, STATUS, lambda found: "there is no video 'gone.mp4'" in found)
            assert "what was watched goes on" in await page.run(STATUS)
            assert [name for name, each in server.sessions if each.ended is None] == [first]
            await page.run(choose("door.mp4"))  # the one that goes on makes room

            def only_file(_: int) -> bool:
                return [each.watched.kind for _, each in server.sessions] == ["file"]

            await becomes(page, "1", only_file)
            await becomes(page, STATUS, "live".__eq__)
            assert len(model.streams) == 1

    asyncio.run(main())


SLOW_PICTURES = """(() => {
    const blob = Response.prototype.blob;
    Response.prototype.blob = async function () {
        await new Promise((done) => { window.letThrough = done; });
        return blob.call(this);
    };
})()"""


def test_a_picture_that_comes_after_its_session_is_not_shown(tmp_path: Path) -> None:
    async def main() -> None:
        sources = Sources(sample=partial(sample, side=96))
        made = running(tmp_path, sources=sources)
        async with made as server, opened(f"{url(server)}/", tmp_path) as page:
            await becomes(page, STATUS, "live".__eq__)
            await page.run(SLOW_PICTURES)
            await becomes(page, "!!window.letThrough", bool)
            await page.run("document.getElementById('stop').click()")
            await becomes(page, STATUS, "stopped".__eq__)
            hidden = "document.getElementById('picture').hidden"
            assert await page.run(hidden) is True
            await page.run("window.letThrough()")
            await asyncio.sleep(0.5)
            assert await page.run(hidden) is True

    asyncio.run(main())


def test_the_page_warns_of_its_model_and_asks_for_a_token(tmp_path: Path) -> None:
    async def main() -> None:
        sources = Sources(sample=partial(sample, side=96))
        made = running(tmp_path, sources=sources, guard=Guard("right"), warning="it <b>babbles")
        async with made as server, opened(f"{url(server)}/", tmp_path) as page:
            asks = "document.getElementById('token').hidden"
            await becomes(page, asks, lambda hidden: not hidden)
            await page.run("document.getElementById('given').value = 'right'")
            await page.run("document.getElementById('token').requestSubmit()")
            # The page loads anew, and has nothing for a moment.
            await becomes(page, STATUS.replace(".inner", "?.inner"), lambda found: found == "live")
            assert await page.run(asks) is True
            told = "document.getElementById('warning').innerText"
            assert await page.run(told) == "Warning: it <b>babbles"

    asyncio.run(main())


def test_on_a_phone_one_speaks_without_scrolling(tmp_path: Path) -> None:
    async def main() -> None:
        sources = Sources(sample=partial(sample, side=96))
        made = running(tmp_path, sources=sources)
        async with made as server, opened(f"{url(server)}/", tmp_path) as page:
            await becomes(page, STATUS, "live".__eq__)
            for width, height in ((390, 844), (1440, 900)):
                await page.picture(tmp_path / "page.png", width, height)
                box = "document.getElementById('text').getBoundingClientRect()"
                assert 0 < await page.run(f"{box}.bottom") <= height
                assert await page.run("document.documentElement.scrollWidth") <= width

    asyncio.run(main())


class Recalls(Scripted):
    """Knows a name if the stream's memory tells it, once its turns no longer do."""

    heard = asked = 0

    async def reply(self, handle: int) -> Any:
        stream = self.streams[handle]
        turn = stream.open_turn
        assert turn is not None
        if "I am Hugo." in turn.queries:
            self.heard = turn.second
        if "Who am I?" in turn.queries:
            self.asked = turn.second
            there = any("I am Hugo." in each.queries for each in stream.turns)
            known = "I am Hugo." in stream.memory_text and not there
            self.actions[turn.second] = Response("You are Hugo." if known else "I do not know.")
        return await super().reply(handle)


def test_what_was_typed_ten_minutes_ago_is_remembered(tmp_path: Path) -> None:
    def fast(stop: threading.Event) -> Iterator[Second | Notice]:
        yield Notice("live")
        for number in range(100_000):
            if stop.wait(0.01):
                return
            yield second(number)

    async def main() -> None:
        model = Recalls()
        made = running(tmp_path, model, sources=Sources(sample=fast))
        async with made as server, opened(f"{url(server)}/", tmp_path) as page:

            async def type_in(text: str) -> None:
                await page.run(f"document.getElementById('text').value = {text!r}")
                await page.run("document.getElementById('ask').requestSubmit()")

            await becomes(page, "document.querySelectorAll('#strip li').length", bool)
            await type_in("I am Hugo.")
            await becomes(page, "1", lambda _: model.heard > 0)
            (stream,) = model.streams.values()
            await becomes(page, "1", lambda _: stream.turns[-1].second > model.heard + 620, 60)
            await type_in("Who am I?")
            await becomes(page, *said("You are Hugo."))
            assert model.asked - model.heard > 600

    asyncio.run(main())


def test_the_page_goes_on_after_its_connection_was_cut(tmp_path: Path) -> None:
    async def main() -> None:
        model = Scripted({t: Response(f"second {t}") for t in range(1, 40)})
        sources = Sources(sample=partial(sample, side=96))
        made = running(tmp_path, model, sources=sources)
        async with made as server, opened(f"{url(server)}/", tmp_path) as page:
            await becomes(page, *said("second 2"))
            for socket in tuple(server._sockets):
                await socket.close()
            await becomes(page, *said("second 6"))
            shown = await page.run("document.getElementById('said').innerText")
            numbers = [int(line.split()[1]) for line in shown.splitlines() if "second" in line]
            assert numbers == list(range(1, len(numbers) + 1))  # nothing twice, nothing lost

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kept", "told"),
    [(True, "ended: nobody was there"), (False, "ended: there is no such session")],
)
def test_a_session_that_ended_while_the_connection_was_cut_is_told_to_be_over(
    tmp_path: Path, kept: bool, told: str
) -> None:
    async def main() -> None:
        sources = Sources(sample=partial(sample, side=96))
        made = running(tmp_path, sources=sources)
        async with made as server, opened(f"{url(server)}/", tmp_path) as page:
            await becomes(page, STATUS, "live".__eq__)
            ((name, _),) = server.sessions
            for socket in tuple(server._sockets):
                await socket.close()
            await server.sessions.close_one(name, "nobody was there")
            if not kept:
                await server.sessions.drop(name)
            await becomes(page, STATUS, told.__eq__)
            await asyncio.sleep(2)
            assert await page.run(STATUS) == told

    asyncio.run(main())


def test_who_starts_twice_at_once_has_one_session(tmp_path: Path) -> None:
    async def main() -> None:
        model = Scripted()
        sources = Sources(sample=partial(sample, side=96))
        made = running(tmp_path, model, sources=sources)
        async with made as server, opened(f"{url(server)}/", tmp_path) as page:
            await becomes(page, STATUS, "live".__eq__)
            start, stop = (f"document.getElementById('{n}').click();" for n in ("start", "stop"))
            await page.run(start * 2)
            await asyncio.sleep(2)
            await becomes(page, STATUS, "live".__eq__)
            assert len(server.sessions) == len(server._sockets) == len(model.streams) == 1
            await page.run(start + stop)
            await asyncio.sleep(2)
            assert await page.run(STATUS) == "stopped"
            assert not len(server.sessions) and not server._sockets and not model.streams

    asyncio.run(main())


def test_a_camera_of_the_browser_is_watched(tmp_path: Path) -> None:
    """Chromium's own made-up camera over WebRTC."""

    async def main() -> None:
        webrtc, model = WebRtc(), Scripted({2: Response("A green picture.")})
        async with running(tmp_path, model) as server:
            server._offer = webrtc.offer
            async with opened(f"{url(server)}/", tmp_path, *CAMERA) as page:
                await becomes(page, "document.getElementById('source').value", "webrtc".__eq__)
                await page.run("document.getElementById('start').click()")
                await becomes(page, *said("A green picture."))
                await becomes(page, "document.getElementById('camera').videoWidth", lambda n: n > 0)
                (stream,) = model.streams.values()
                colours = [turn.frames[-1].resize((1, 1)).getpixel((0, 0)) for turn in stream.turns]
                # The made-up camera shows green with a pie that turns.
                assert all(green > red + 20 and green > blue + 20 for red, green, blue in colours)
        await webrtc.close()

    asyncio.run(main())
