"""Cases in real time over a real RTSP server: what is said lies where a simulated clock has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.world.streams import WorldFrames
from eval.live import as_heard, play_live, served, shift, write_video
from eval.play import Played, play
from eval.rules import judge
from joyvl_train.actions import Action, Response, Silence
from joyvl_train.heldout import Step
from serve.session import Stepped, Tick
from serve.source import SourceError, rtsp
from tests.eval.made_cases import made

TEXT = """\
scenario: monitoring
about: Fire comes and goes.
stream:
  seconds: 10
  background: {plain: sky}
  things:
    - {thing: fire, from: 3, to: 6, place: top left, size: 0.6}
user:
  - {at: 1, says: Tell me every time a fire appears.}
due:
  - {at: 3, says: A fire appeared., facts: [fire], until: 6, seen: fire came}
"""


class Watchful:
    """Says so when the picture changes much, once."""

    name = "watchful"

    def watch(self, case: str, opening: str, seed: int) -> Watchful:
        self._before: np.ndarray | None = None
        return self

    def step(self, tick: Tick) -> Stepped | None:
        now = np.asarray(tick.frames[-1].resize((32, 32))).astype(int)
        moved = 0.0 if self._before is None else float(np.abs(now - self._before).mean())
        redder = self._before is not None and (now - self._before)[..., 2].mean() < 0
        self._before = now
        action: Action = Silence()
        if moved > 4 and redder:
            action = Response("A fire appeared.")
        return Stepped(Step(tick.second, action, tick.queries))

    def close(self) -> None:
        pass


@pytest.mark.slow
def test_a_case_in_real_time_gets_the_verdict_of_the_simulated_clock(tmp_path: Path) -> None:
    case = made(tmp_path, TEXT)
    frames = WorldFrames(case.timeline, 96)
    simulated = play(case, frames, Watchful()).trace
    assert judge(simulated).score == 2
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "fire.mp4", frames)
    with served(tmp_path / "videos") as address:
        played = play_live(case, frames.seconds, Watchful(), f"{address}fire.mp4", side=96)
        with pytest.raises(SourceError, match="see to address and server"):
            list(rtsp(f"{address}none.mp4", timeout=3))
    heard = as_heard(played)
    assert judge(heard) == judge(simulated) and shift(simulated, heard) in (0, 1)
    assert [step.second for step in played.trace.steps] == list(range(10))


def test_the_video_of_a_case_shows_each_second_from_its_start(tmp_path: Path) -> None:
    case = made(tmp_path, TEXT)
    frames = WorldFrames(case.timeline, 96)
    write_video(tmp_path / "fire.mp4", frames)
    read = list(rtsp(str(tmp_path / "fire.mp4"), frames_per_second=1))
    assert [second.second for second in read] == list(range(10))
    for second in read:
        (image,) = second.frames
        wanted = np.asarray(frames.frames(second.second)[0]).astype(int)
        assert np.abs(np.asarray(image).astype(int) - wanted).mean() < 6


def test_what_was_heard_late_is_moved_and_counted(tmp_path: Path) -> None:
    case = made(tmp_path, TEXT)
    trace = play(case, WorldFrames(case.timeline, 96), Watchful()).trace
    slow = Played(trace, tuple(1.7 if t == 3 else 0.2 for t in range(10)))
    assert [e.second for e in as_heard(slow).emissions] == [4]
    assert shift(trace, as_heard(slow)) == 1 and shift(trace, trace) == 0
    silent = Played(trace, (9.9,) * 10)
    assert shift(trace, as_heard(silent)) is None  # never heard
