"""Clips are opened once, by whichever thread asks first."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_pipeline.clip_frames import ClipFrames
from joyvl_train.timeline import Clip, Timeline
from tests.joyvl_train.videos import make_video


def test_many_threads_open_more_clips_than_are_kept(tmp_path: Path) -> None:
    names = [f"{number}.mp4" for number in range(12)]
    for name in names:
        make_video(tmp_path / name, [0.0, 0.5, 1.0, 1.5])
    frames = ClipFrames(tmp_path, tmp_path / "cache", 1, 64)
    clips = [Timeline(Clip(name, 2.0, video=name), "qa", "test", ()) for name in names]

    def look(number: int) -> int:
        found = frames(clips[number % len(clips)])
        return len(found.frames(number % 2))

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(look, range(400))) == {1}
    again = pickle.loads(pickle.dumps(frames))
    assert again(clips[0]).seconds == 2
