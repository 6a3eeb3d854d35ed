"""Between source and session: the newest seconds, whole ones, whatever the source does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from serve.feed import Feed, Reader
from serve.pushed import PictureError, Pushed, read_picture
from serve.source import Notice, Sampler, Second, SourceError, play, public, watch
from tests.joyvl_train.videos import make_video
from tests.serve.lived import GREY, second
from tests.serve.running import jpeg


def seconds_of(sampler: Sampler, times: list[float]) -> list[int]:
    found = [s.second for at in times for s in sampler.add(at, lambda: GREY)]
    return found + [s.second for s in sampler.end()]


def test_whole_seconds_of_pictures_with_times() -> None:
    assert seconds_of(Sampler(), [0.0, 0.4, 1.2, 1.9, 2.1]) == [0, 1, 2]
    assert seconds_of(Sampler(), [10.0, 10.9, 13.5]) == [0, 3]  # counted from the first; gaps stay
    assert seconds_of(Sampler(every=2), [0, 1, 2, 3, 4]) == [0, 2, 4]
    assert seconds_of(Sampler(start=7), [0.0, 1.0]) == [7, 8]
    # A clock that is set, ahead or back: time goes on by a second.
    assert seconds_of(Sampler(), [0.0, 1.0, 5000.0, 5001.0]) == [0, 1, 2, 3]
    assert seconds_of(Sampler(), [100.0, 101.0, 3.0, 4.0]) == [0, 1, 2, 3]
    sampler = Sampler()
    found = [s for at in (0.0, 1.0, 5000.0, 5001.0) for s in sampler.add(at, lambda: GREY)]
    assert [s.anew for s in [*found, *sampler.end()]] == [False, False, True, False]
    with pytest.raises(ValueError, match="1 or more"):
        Sampler(0)


def test_only_pictures_that_are_kept_are_made() -> None:
    made: list[int] = []

    def picture(number: int) -> Image.Image:
        made.append(number)
        return GREY

    sampler = Sampler(2, side=16)
    found = []
    for number in range(21):
        found += sampler.add(number / 10, lambda n=number: picture(n))
    assert made == [4, 9, 14, 19] and [len(s.frames) for s in found] == [2, 2]
    assert found[0].frames[0].size == (16, 16)


def test_a_feed_holds_the_newest_and_counts_the_rest() -> None:
    async def main() -> None:
        states: list[str] = []
        feed = Feed(2, lambda state, detail: states.append(state))
        taking = asyncio.create_task(feed.take())
        await asyncio.sleep(0)
        for number in range(5):
            feed.put(second(number))
        assert (await taking) is not None
        feed.put(Notice("lost", "cut"))
        feed.put(Notice("lost", "cut again"))
        feed.put(second(5))
        feed.end("over")
        feed.put(second(6))
        rest = []
        while (found := await feed.take()) is not None:
            rest.append(found.second)
        assert rest == [4, 5] and feed.dropped == 3
        assert states == ["live", "lost", "live", "ended"]

    asyncio.run(main())


def test_a_reader_that_waits_loses_nothing_and_one_that_fails_says_so() -> None:
    def many(stop: threading.Event) -> Iterator[Second]:
        for number in range(50):
            yield second(number)

    def fails(stop: threading.Event) -> Iterator[Second]:
        yield second(0)
        raise SourceError("no camera; plug it in")

    async def main() -> None:
        feed = Feed(2)
        Reader(feed, many, waits=True)
        found = []
        while (item := await feed.take()) is not None:
            found.append(item.second)
            await asyncio.sleep(0.001)
        assert found == list(range(50)) and feed.dropped == 0
        told: list[str] = []
        feed = Feed(2, lambda state, detail: told.append(detail))
        Reader(feed, fails)
        while await feed.take() is not None:
            pass
        assert told[-1] == "no camera; plug it in"

    asyncio.run(main())


def test_a_reader_that_is_stopped_stops() -> None:
    def endless(stop: threading.Event) -> Iterator[Second]:
        number = 0
        while not stop.wait(0.01):
            yield second(number)
            number += 1

    async def main() -> None:
        feed = Feed(2)
        reader = Reader(feed, endless)
        assert await feed.take() is not None
        await reader.stop()
        assert feed.state == "ended" and not reader._thread.is_alive()

    asyncio.run(main())


def test_pushed_pictures_end_with_their_second_or_come_whole() -> None:
    async def main() -> None:
        feed = Feed(9)
        pushed = Pushed(feed)
        pushed.add(lambda: GREY)
        async with asyncio.timeout(3):
            found = await feed.take()
        assert found is not None and found.second == 0  # no second picture was needed
        pushed.end()
        feed = Feed(9)
        pushed = Pushed(feed, side=16)
        pushed.whole(3, GREY)
        with pytest.raises(ValueError, match="was there before"):
            pushed.whole(3, GREY)
        found = await feed.take()
        assert found is not None and found.second == 3 and found.frames[0].size == (16, 16)
        feed = Feed(9)
        pushed = Pushed(feed, every=2)
        for number in range(5):
            pushed.whole(number, GREY)
        pushed.end()
        assert [found.second async for found in taken(feed)] == [0, 2, 4]

    asyncio.run(main())


def test_a_camera_of_thirty_frames_a_second_makes_one_second_of_each() -> None:
    async def main() -> list[Second]:
        feed = Feed(99)
        pushed = Pushed(feed)
        begun = time.monotonic()
        while time.monotonic() < begun + 3.3:
            pushed.add(lambda: GREY)
            await asyncio.sleep(1 / 30)
        pushed.end()
        return [found async for found in taken(feed)]

    found = asyncio.run(main())
    assert [each.second for each in found] == [0, 1, 2]
    # Each ends when its time is over, as near as a busy machine lets it.
    assert all(each.second + 1 <= each.arrived < each.second + 1.9 for each in found)


def test_a_pause_of_a_camera_lasts_as_long_as_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("serve.pushed.time", SimpleNamespace(monotonic=lambda: now))

    async def main() -> list[Second]:
        nonlocal now
        feed = Feed(99)
        pushed = Pushed(feed, every=2)
        for at in (0.0, 1.5, 2.5, 62.2, 63.5, 64.5):
            now = 1000.0 + at
            pushed.add(lambda: GREY)
        pushed.end()
        return [found async for found in taken(feed)]

    assert [each.second for each in asyncio.run(main())] == [0, 2, 62]


async def taken(feed: Feed) -> AsyncIterator[Second]:
    """What the feed holds until its end."""
    while (found := await feed.take()) is not None:
        yield found


def test_pictures_from_outside_are_read_with_care() -> None:
    assert read_picture(jpeg(), 10**6).size == (32, 32)
    for data in (b"", b"\xff\xd8\xff", jpeg()[:100], b"GIF89a" + b"\0" * 50):
        with pytest.raises(PictureError, match="no JPEG"):
            read_picture(data, 10**6)
    with pytest.raises(PictureError, match="at most 100 pixels"):
        read_picture(jpeg(), 100)


def test_a_file_plays_paced_or_at_once(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", [k / 5 for k in range(12)])
    items = list(play(str(tmp_path / "v.mp4"), threading.Event(), paced=False))
    assert items[0] == Notice("live")
    assert [i.second for i in items if isinstance(i, Second)] == [0, 1, 2]
    stop = threading.Event()
    paced = play(str(tmp_path / "v.mp4"), stop)
    next(paced)
    stop.set()
    assert list(paced) == []


def test_what_is_wrong_with_a_file_is_told_without_its_place(tmp_path: Path) -> None:
    good = make_video(tmp_path / "good.mp4", [k / 5 for k in range(60)]).read_bytes()
    broken = len(good) * 4 // 10, len(good) * 6 // 10
    damaged = good[: broken[0]] + b"\xff" * (broken[1] - broken[0]) + good[broken[1] :]
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    invalid = "Invalid data found when processing input"
    for name, why in (
        ("none.mp4", "can't be opened (missing file); name a video file"),
        ("empty.mp4", "can't be opened (empty file); name a video file"),
        ("broken.mp4", "can't be opened (not a video); name a video file"),
        (".", "can't be opened (no regular file); name a video file"),
        ("damaged.mp4", f"is damaged at second 4 ({invalid}); what follows can't be read"),
    ):
        path = tmp_path / name
        found: deque[Second | Notice] = deque()
        with pytest.raises(SourceError) as wrong:
            found.extend(play(str(path), threading.Event(), paced=False))
        assert str(wrong.value) == f"{path.name}: {why}"
        seconds = [item.second for item in found if isinstance(item, Second)]
        assert seconds == ([0, 1, 2, 3, 4] if name == "damaged.mp4" else [])


def test_a_camera_is_connected_anew_and_its_password_is_told_to_nobody(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", [k / 5 for k in range(8)])
    stop = threading.Event()
    items = watch(str(tmp_path / "v.mp4"), stop, longest_wait=0.05)
    found: list[Second | Notice] = []
    for item in items:  # the file ends again and again, as a camera might
        found.append(item)
        if sum(i == Notice("live") for i in found) == 3:
            stop.set()
    kinds = [i.kind if isinstance(i, Notice) else "second" for i in found]
    assert kinds[:4] == ["live", "second", "second", "lost"] and kinds.count("lost") >= 2
    places = [i.second for i in found if isinstance(i, Second)]
    assert places == sorted(set(places))  # no second comes twice
    with_password = "rtsp://user:secret@127.0.0.1:9/door"
    assert public(with_password) == "rtsp://127.0.0.1:9/door" and public("a/b@c") == "a/b@c"
    stop = threading.Event()
    lost = next(watch(with_password, stop, timeout=2))
    assert isinstance(lost, Notice) and lost.kind == "lost" and "secret" not in lost.detail
