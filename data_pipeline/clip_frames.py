"""The pictures of any clip, for all stages alike: videos decoded once, scenes drawn."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from data_pipeline.world.scene import SceneError
from data_pipeline.world.streams import WorldFrames
from joyvl_train.corpus import FrameSource
from joyvl_train.frames import Frames, Rate
from joyvl_train.timeline import Timeline
from joyvl_train.video import FrameError

_KEPT = 8


class ClipFrames:
    """Opens the pictures of a timeline's clip; `FrameError` where they can't be had.

    Videos and pictures lie under `root`, decoded videos in `cache_dir`; `size` is the longest side
    of their pictures, and the side of a scene's square ones. The last few videos stay open. Safe
    to share between threads, and to pickle.
    """

    def __init__(self, root: Path, cache_dir: Path, rate: Rate, size: int) -> None:
        self._source = FrameSource(root.absolute(), cache_dir.absolute(), rate, size)
        self._size = size
        self._open: OrderedDict[tuple[str, int, float | None], Frames] = OrderedDict()
        self._lock = Lock()

    def __call__(self, timeline: Timeline) -> Frames:
        clip = timeline.clip
        if clip.scene is not None:
            try:
                return WorldFrames(timeline, self._size)
            except SceneError as error:
                raise FrameError("no source", f"clip {clip.id!r}: {error}") from None
        if clip.video is None:
            return self._source.frames(timeline)
        key = (clip.video, clip.offset, clip.duration)
        # Stages and the thread that asks agents open clips at the same time.
        with self._lock:
            found = self._open.get(key)
        if found is None:
            found = self._source.frames(timeline)
        with self._lock:
            self._open[key] = found
            self._open.move_to_end(key)
            if len(self._open) > _KEPT:
                self._open.popitem(last=False)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_open", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open, self._lock = OrderedDict(), Lock()
