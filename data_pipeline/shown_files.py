"""The videos that a plan's candidates show, and whether they are still those that were planned.

videos.jsonl   a line a video: its path, and its size and time of change; nulls: not there
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from data_pipeline.lines import LinesWriter, read_lines
from joyvl_train.config import UserError

NAME = "videos.jsonl"


def note_files(folder: Path, root: str | os.PathLike[str], videos: Iterable[str]) -> None:
    """Writes into `folder` how the `videos` under `root` are now."""
    with LinesWriter(folder / NAME) as lines:
        for video in videos:
            lines.add([video, *_state(os.path.join(root, video))])


def check_files(folder: Path, root: str | os.PathLike[str]) -> None:
    """`UserError` where a video is another one than was noted in `folder`, or is gone."""
    if not (folder / NAME).exists():
        return
    for video, *noted in read_lines(folder / NAME):
        path = os.path.join(root, video)
        now = _state(path)
        if now != tuple(noted):
            change = "is gone" if now[0] is None else "has changed"
            raise UserError(
                f"{path}: {change} since the plan in {folder} was made ({_told(*noted)}, now "
                f"{_told(*now)}); bring that one back, or give another folder"
            )


State = tuple[int | None, int | None]


def _state(path: str) -> State:
    """Size, and the nanosecond of the last change; nothing where no file is."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a path with a zero in it is none
        return None, None
    return status.st_size, status.st_mtime_ns


def _told(size: int | None, changed: int | None) -> str:
    if size is None or changed is None:
        return "not there"
    return f"{size} bytes of {changed / 1e9:.3f}"
