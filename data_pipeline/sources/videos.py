"""The folder of videos that annotations name their footage in."""

from __future__ import annotations

import os
import posixpath
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from joyvl_train.config import UserError
from joyvl_train.pictures import inside
from joyvl_train.records import check_repeats
from joyvl_train.timeline import Timeline, TimelineError
from joyvl_train.video import FrameError, probe

SUFFIXES = (
    ".3gp .asf .avi .flv .gif .h264 .hevc .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogg .ogv .ts "
    ".webm .wmv"
).split()
"""Endings of the files that are taken for videos."""

_KEPT = 256

# "https://...", "zip:a.zip", "concat:a|b"; "Part: one.mp4" is a name like any.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?!\s)|.*://")
_DRIVE = re.compile(r"[A-Za-z]:")
_ARCHIVE = re.compile(
    r"\.(zip|jar|tar|tgz|tbz2?|txz|gz|bz2|xz|zst|lzma|7z|rar|cab|iso)(?=$|/|!|::)", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def video_path(name: Any, what: str, suffix: str = "") -> str:
    """The path that an annotation gives, relative to the folder of videos; `suffix` is added where
    it names the video without.

    Raises `TimelineError`: no video, not UTF-8, odd path, no local file (URLs and protocols),
    inside an archive, outside the folder (absolute paths and those that climb out of it).
    """
    if not isinstance(name, str) or not name.strip():
        raise TimelineError("no video", f"{what}: {str(name)[:40]!r}")
    told = f"{what}: {ascii(name[:120])}"
    path: str = name + suffix
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise TimelineError("not UTF-8", told) from None
    if _CONTROL.search(path) or any(len(part.encode()) > 255 for part in path.split("/")):
        raise TimelineError("odd path", told)
    if path.startswith(("/", "\\", "~")) or _DRIVE.match(path) or "\\" in path:
        raise TimelineError("outside the folder", told)
    if _ARCHIVE.search(path):
        raise TimelineError("inside an archive", told)
    if _SCHEME.match(path):
        raise TimelineError("no local file", told)
    path = posixpath.normpath(path)
    if path in (".", "..") or path.startswith("../"):
        raise TimelineError("outside the folder", told)
    return path


class Videos:
    """The videos of one folder. Raises `UserError` where there is no such folder."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"{str(root)!r} is no folder of videos; mend the path")
        self.root = root
        self._known: OrderedDict[str, float | FrameError] = OrderedDict()

    def duration(self, path: str) -> float:
        """The length of a video by its packets. `FrameError` where it can't be used."""
        if path not in self._known:
            try:
                self._known[path] = probe(inside(self.root, path)).duration
            except FrameError as error:
                self._known[path] = error
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(path)
        found = self._known[path]
        if isinstance(found, FrameError):
            raise FrameError(found.reason, found.detail)
        return found

    def settled(self, timeline: Timeline) -> Timeline:
        """The timeline with its clip's length known from the video, if it has one.

        A record may tell of a video's start alone. `TimelineError` "past the end" where something
        is due after the last picture.
        """
        clip = timeline.clip
        if clip.video is None:
            return timeline
        there = self.duration(clip.video) - clip.offset
        if there <= 0:
            raise TimelineError("past the end", f"clip {clip.id!r} begins {-there:.3f} s after it")
        if clip.duration is not None and clip.duration <= there:
            return timeline
        settled = replace(timeline, clip=replace(clip, duration=there))
        check_repeats(settled)
        return settled

    def files(self) -> Iterator[Path]:
        """All files below the folder, in a fixed order.

        Folders that can't be opened, and links to folders, which may lead in circles, come as they
        are.
        """
        levels = [_entries(self.root)]
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop()
            elif entry.is_dir() and not entry.is_symlink() and os.access(entry, os.R_OK | os.X_OK):
                levels.append(_entries(entry))
            else:
                yield entry


def _entries(folder: Path) -> Iterator[Path]:
    try:
        return iter(sorted(folder.iterdir(), key=lambda path: path.name))
    except OSError as error:
        raise UserError(f"{str(folder)!r} can't be read: {error.strerror}") from None


def check_no_folder(path: Path, where: str) -> None:
    """`TimelineError` where `Videos.files` gave a folder that it could not go into."""
    if path.is_dir():
        reason = "link to a folder" if path.is_symlink() else "unreadable folder"
        raise TimelineError(reason, repr(where))


def is_video(path: Path) -> bool:
    """Whether a file is taken for a video by its name."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
