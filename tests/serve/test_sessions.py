"""Open sessions: what is refused leaves nothing behind, and what breaks is told."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from serve.live_settings import LiveSettings
from serve.memory import Said
from serve.sessions import Limits, Refused, Served, Sessions
from serve.sources import NotAllowed, Sources
from tests.serve.lived import Scripted, second, settled


class Biasless(Scripted):
    """Its tokenizer allows no bias."""

    def lean(self, handle: int, silence_bias: float) -> None:
        if silence_bias:
            raise ValueError("this tokenizer allows no bias")


class Broken(Scripted):
    """Its pictures can't be made: an error of ours, not of a reply."""

    def frame(self, image: Any) -> Any:
        raise KeyError("frame")


def sessions(folder: Path, model: Scripted, **limits: Any) -> Sessions:
    settings = LiveSettings(modes={"default": 0.0, "aloof": 2.0})
    served = Served("m", [model], lambda model: Said(), settings)
    return Sessions([served], Sources(), folder, limits=Limits(**limits))


def test_what_is_refused_holds_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        model = Biasless()
        made = sessions(tmp_path, model)
        with pytest.raises(Refused, match="allows no bias"):
            made.open({"kind": "push"}, mode="aloof")
        with pytest.raises(NotAllowed):
            made.open({"kind": "file", "path": "/etc/passwd"})
        assert model.opened == 1 and model.streams == {} and len(made) == 0

    asyncio.run(main())


def test_what_can_not_be_had_is_refused_before_there_are_too_many(tmp_path: Path) -> None:
    """Who closes a session to make room for another gets the other."""

    async def main() -> None:
        (tmp_path / "videos").mkdir()
        made = sessions(tmp_path, Scripted(), sessions=1)
        made.sources = Sources(videos=tmp_path / "videos")
        made.open({"kind": "push"})
        with pytest.raises(NotAllowed, match="there is no video 'gone.mp4'"):
            made.open({"kind": "file", "name": "gone.mp4"})
        with pytest.raises(Refused, match="there is no mode 'loud'"):
            made.open({"kind": "push"}, mode="loud")
        with pytest.raises(Refused, match="1 sessions are open already") as full:
            made.open({"kind": "push"})
        assert full.value.status == 429 and len(made) == 1
        await made.close()

    asyncio.run(main())


def test_a_session_that_breaks_tells_its_clients(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> list[dict[str, Any]]:
        made = sessions(tmp_path, Broken())
        name, found = made.open({"kind": "push"})
        found.watched.feed.put(second(0))
        for _ in range(200):
            await asyncio.sleep(0.01)
            if found.driving is not None and found.driving.done():
                break
        await made.close_one(name)
        events = found.live.log.after(0)
        assert events[-1]["kind"] == "closed" and "broke" in events[-1]["reason"]
        assert len(made) == 0 and found.live.log.closed
        return [event for event in events if event["kind"] == "engine"]

    with caplog.at_level(logging.ERROR, "joyvl.serve"):
        (event,) = asyncio.run(main())
    assert "broke" in event["error"] and "frame" not in event["error"]
    assert "KeyError" in caplog.text


def test_one_that_is_dropped_while_all_are_swept_stays_gone(tmp_path: Path) -> None:
    async def main() -> None:
        model = Scripted()
        made = sessions(tmp_path, model, kept=0.0)
        names = [made.open({"kind": "push"})[0] for _ in range(3)]
        for name in names:
            await made.close_one(name)
        await asyncio.sleep(0.01)
        await asyncio.gather(made.sweep(), *(made.drop(name) for name in names), made.sweep())
        await settled()
        assert list(made) == [] and model.streams == {}
        assert made.counted()["closed"] == 3

    asyncio.run(main())
