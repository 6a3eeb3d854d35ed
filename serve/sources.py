"""What a session may watch: only what the configuration allows, whatever a request asks for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joyvl_train.pictures import inside
from joyvl_train.video import FrameError
from serve.feed import Feed, Reader
from serve.pushed import Pushed
from serve.source import Notice, Second, play, public, watch

Items = Callable[[threading.Event], Iterable[Second | Notice]]


_KEYS = {"sample": "serve.sample", "file": "serve.videos", "rtsp": "serve.rtsp"}
"""The key of the configuration that allows a kind of source; others always are."""


class NotAllowed(ValueError):
    """A source that the configuration does not allow, or none at all."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A source on its way into a feed: a reader of our own, or what clients push."""

    kind: str
    feed: Feed
    reader: Reader | None = None
    pushed: Pushed | None = None

    async def stop(self) -> None:
        if self.reader is not None:
            await self.reader.stop()
        if self.pushed is not None:
            self.pushed.end("stopped")


@dataclass(frozen=True, slots=True)
class Sources:
    """videos: folder of the files that may be watched; None: none. rtsp: addresses that may be; one
    that ends with "/" stands for all below it. sample: makes the seconds of the sample stream.

    frames_per_second, side, every: of all sources, as `serve.source.Sampler` takes them. most:
    seconds that wait for a slow model.
    """

    videos: Path | None = None
    rtsp: Sequence[str] = ()
    sample: Items | None = None
    frames_per_second: int = 1
    side: int | None = None
    every: int = 1
    most: int = 2

    def kinds(self) -> list[str]:
        """What may be asked for."""
        found = ["push", "webrtc"]
        found += ["sample"] if self.sample else []
        found += ["file"] if self.videos else []
        return found + (["rtsp"] if self.rtsp else [])

    def find(self, asked: Mapping[str, Any]) -> Callable[[Feed], Watched]:
        """What begins to watch, into a feed. asked: kind, and file's name or rtsp's url. Raises
        `NotAllowed`."""
        kind = asked.get("kind", "push")
        sampled: dict[str, Any] = {
            "frames_per_second": self.frames_per_second,
            "side": self.side,
            "every": self.every,
        }
        if kind not in self.kinds():
            key = _KEYS.get(kind) if isinstance(kind, str) else None
            why = f"which {key} does not allow here" if key else "which is none"
            raise NotAllowed(
                f"source.kind is {str(kind)[:100]!r}, {why}; there are {', '.join(self.kinds())}"
            )
        if kind in ("push", "webrtc"):
            return lambda feed: Watched(kind, feed, pushed=Pushed(feed, **sampled))
        waits = False
        items: Items
        if kind == "sample":
            assert self.sample is not None
            items = self.sample
        elif kind == "file":
            waits = asked.get("paced", True) is False
            path = self._file(asked.get("name"))
            items = partial(_played, path, not waits, sampled)
        else:
            items = partial(_watched, self._address(asked.get("url")), sampled)
        return lambda feed: Watched(kind, feed, Reader(feed, items, waits=waits))

    def files(self) -> list[str]:
        """The names of the videos that may be watched."""
        if self.videos is None:
            return []
        names = (path.name for path in self.videos.iterdir() if path.name[0] != ".")
        return sorted(name for name in names if self._real(name) is not None)

    def _file(self, name: object) -> Path:
        assert self.videos is not None
        if not isinstance(name, str) or len(name) > 255:
            raise NotAllowed("source.name is missing; name a file of the videos' folder")
        try:
            real = self._real(name)
        except (FrameError, ValueError):
            raise NotAllowed(f"source.name: {name[:100]!r} is outside the videos' folder") from None
        if real is None:
            raise NotAllowed(f"source.name: there is no video {name[:100]!r}")
        return real

    def _real(self, name: str) -> Path | None:
        """The file of this name, where it lies in the videos' folder and no link leads out."""
        assert self.videos is not None
        path = inside(self.videos, name)
        try:
            if not path.is_file():
                return None
        except OSError:  # a name that no file can have
            return None
        real = path.resolve()
        return real if real.is_relative_to(self.videos.resolve()) else None

    def _address(self, url: object) -> str:
        if not isinstance(url, str) or len(url) > 1000:
            raise NotAllowed("source.url is missing; name an address that is allowed")
        if any(ord(c) <= 32 or ord(c) > 126 or c in "\\%@#" for c in url):
            raise NotAllowed("source.url holds characters that no address of serve.rtsp holds")
        try:
            parts = urlsplit(url)
        except ValueError:  # half of an IPv6 address, say
            raise NotAllowed("source.url is no address that serve.rtsp allows") from None
        if parts.scheme not in ("rtsp", "rtsps") or ".." in parts.path.split("/"):
            raise NotAllowed("source.url is no address that serve.rtsp allows")
        for entry in self.rtsp:
            if url == public(entry) or (entry.endswith("/") and url.startswith(public(entry))):
                return entry if url == public(entry) else entry + url[len(public(entry)) :]
        raise NotAllowed("source.url is no address that serve.rtsp allows")


def _played(
    path: Path, paced: bool, sampled: Mapping[str, Any], stop: threading.Event
) -> Iterable[Second | Notice]:
    return play(str(path), stop, paced=paced, **sampled)


def _watched(
    url: str, sampled: Mapping[str, Any], stop: threading.Event
) -> Iterable[Second | Notice]:
    return watch(url, stop, **sampled)
