"""Streams by the second: what frames without a time, gaps and clock jumps come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from serve.source import SourceError, rtsp, timed
from tests.joyvl_train.videos import make_video


@dataclass
class Frame:
    time: float | None
    name: str = ""


def times(*given: float | None) -> list[float]:
    return [pytest.approx(at) for at, _ in timed(Frame(t) for t in given)]


def test_frames_without_a_time_lie_where_they_must() -> None:
    assert times(0.0, 0.2, 0.4) == [0.0, 0.2, 0.4]
    assert times(None, 0.0, 0.2) == [-0.2, 0.0, 0.2]
    assert times(None, None, 1.0, 1.5, None, 2.5) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert times(0.0, None, 0.4) == [0.0, 0.2, 0.4]
    assert times(5.0) == [5.0] and times(None) == [0.0] and times() == []
    assert len(times(1.0, 1.0, 1.0)) == 3


def test_seconds_of_a_stream(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", [k / 5 for k in range(18)])
    found = list(rtsp(str(tmp_path / "a.mp4"), frames_per_second=2, side=24))
    assert [second.second for second in found] == [0, 1, 2, 3]
    assert [len(second.frames) for second in found] == [2, 2, 2, 1]
    assert max(found[0].frames[0].size) == 24
    short = list(rtsp(str(tmp_path / "a.mp4"), most_seconds=2))
    assert [second.second for second in short] == [0, 1]


def test_seconds_without_a_picture_are_left_out_and_jumps_are_skipped(tmp_path: Path) -> None:
    gap = [0.0, 0.5, 1.0, 1.5, 4.0, 4.5]
    make_video(tmp_path / "gap.mp4", gap)
    assert [s.second for s in rtsp(str(tmp_path / "gap.mp4"))] == [0, 1, 4]
    jump = [0.0, 0.5, 1.0, 1.5, 900.0, 900.5, 901.0]
    make_video(tmp_path / "jump.mp4", jump)
    assert [s.second for s in rtsp(str(tmp_path / "jump.mp4"))] == [0, 1, 2, 3]


def test_what_is_no_stream_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    for name in ("none.mp4", "broken.mp4"):
        with pytest.raises(SourceError, match="can't be opened"):
            list(rtsp(str(tmp_path / name)))
    with pytest.raises(SourceError, match="see to address and server"):
        list(rtsp("rtsp://127.0.0.1:9/none.mp4", timeout=2))
