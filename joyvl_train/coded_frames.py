"""Frames as a model with a predictive code sees them: references whole, the others by a small
picture of what has changed.

    coder = FrameCoder(settings)
    shown = coder.push(second, pictures)     # Image.Image, or Predicted(Image.Image)

The small picture, `change`, is mid-grey where the frame is as was shown before; elsewhere it is as
the frame is now, in its place: a thing that came, one that moved, and where one left what is there
instead. What it is compared with is what the last whole frame and the small pictures since have
shown, not the frame before, so that what changes little by little is shown once it has come to
something. It goes through the vision encoder as any picture does (four tokens for 64 by 64
pixels of a Qwen3-VL, where a frame of 192 by 192 has 36), so that no model code has to know of it.

A chunk's first second is coded anew, and so is one after seconds that are missing. So what a
prompt holds follows from the frames of its own chunk alone: live, offline and after a restart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from joyvl_train.codec import Coded, Encoder
from joyvl_train.stream import Predicted, StreamSettings

if TYPE_CHECKING:
    from joyvl_train.frames import Frames

Shown = Image.Image | Predicted


class ShownFrames(Protocol):
    """The frames of a clip as a model sees them, by the second; plain `Frames` are, too."""

    @property
    def seconds(self) -> int: ...

    def frames(self, second: int) -> tuple[Shown, ...]: ...


_LOW, _HIGH = 10, 40
"""Levels of change that are none, and that are shown in full: noise is below, things are above."""

_GREY = 128
_PARTS = 256
_KEPT_STRETCHES = 3


Colours = NDArray[np.int32]
"""[side, side, 3], in 256ths of a level."""


def colours(frame: Image.Image, side: int) -> Colours:
    """The frame's means over `side` by `side` cells."""
    small = frame.convert("RGB").resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, np.int32) * _PARTS


def change(now: Colours, shown: Colours) -> tuple[Image.Image, Colours]:
    """(the RGB picture of where `now` differs from what was `shown`, what is shown with it)."""
    apart = np.abs(now - shown).max(axis=2, keepdims=True) // _PARTS
    share = np.clip((apart - _LOW) * 255 // (_HIGH - _LOW), 0, 255)
    levels = _GREY + (now // _PARTS - _GREY) * share // 255
    return Image.fromarray(levels.astype(np.uint8)), shown + (now - shown) * share // 255


class FrameCoder:
    """Codes the frames of one stream as they come, with the boundaries that a `Stream` of these
    settings has. begun: as of `Stream`. first: the first second of the stream; None: the first that
    is pushed."""

    def __init__(self, settings: StreamSettings, begun: int = 0, first: int | None = None) -> None:
        assert settings.codec is not None, "settings of a stream whose frames are coded"
        self._codec, self._settings, self._begun = settings.codec, settings, begun
        self._encoder = Encoder(self._codec)
        self._shown: Colours | None = None
        self._stretch = -1
        self._first = first  # with or without frames
        self._last = -1  # the last second with frames
        self.codes: list[Coded] = []
        """Of the frames of the last second."""

    def push(
        self, second: int, frames: Sequence[Image.Image], *, anew: bool = False
    ) -> tuple[Shown, ...]:
        """What is seen of the frames of `second`, which is later than the one before. anew: frames
        are missing before it or in it, which its number does not tell."""
        if self._first is None:
            self._first = second
        self.codes = []
        if anew:
            self._stretch = -1
        if not frames:
            return ()
        stretch = stretch_of(second, self._settings, self._first - self._begun)
        if stretch != self._stretch or second != self._last + 1:
            self._encoder, self._shown = Encoder(self._codec), None
        self._stretch, self._last = stretch, second
        return tuple(map(self._coded, frames))

    def copy(self) -> FrameCoder:
        """Another coder that goes on from here by itself."""
        twin = copy(self)
        twin._encoder, twin.codes = self._encoder.copy(), []
        return twin

    def _coded(self, frame: Image.Image) -> Shown:
        code = self._encoder.push(frame)
        self.codes.append(code)
        now, shown = colours(frame, self._codec.side), self._shown
        if code.reference:
            self._shown = now
            return frame
        assert shown is not None, "the first frame is a reference"
        picture, self._shown = change(now, shown)
        return Predicted(picture)


def stretch_of(second: int, settings: StreamSettings, origin: int) -> int:
    """Which of the stretches that are coded by themselves a second is in: one begins where a chunk
    does, with the first second that it carries over. origin: where the first chunk begins."""
    return max(0, (second - origin + settings.lead) // settings.chunk_seconds)


class CodedFrames:
    """A clip's frames as they are coded; all of a second's chunk before it is looked at for it.

    The clip is watched from its first second. Some stretches are kept; not for several threads.
    """

    def __init__(self, frames: Frames, settings: StreamSettings, begun: int = 0) -> None:
        self._frames, self._settings, self._begun = frames, settings, begun
        self._kept: OrderedDict[int, tuple[FrameCoder, dict[int, tuple[Shown, ...]]]]
        self._kept = OrderedDict()

    @property
    def seconds(self) -> int:
        return self._frames.seconds

    def frames(self, second: int) -> tuple[Shown, ...]:
        """What is seen of a second's frames."""
        stretch = stretch_of(second, self._settings, -self._begun)
        if stretch not in self._kept:
            self._kept[stretch] = FrameCoder(self._settings, self._begun, 0), {}
            if len(self._kept) > _KEPT_STRETCHES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(stretch)
        coder, found = self._kept[stretch]
        chunk, lead = self._settings.chunk_seconds, self._settings.lead
        first = max(0, stretch * chunk - lead - self._begun) if stretch else 0
        for each in range(first + len(found), second + 1):
            found[each] = coder.push(each, self._frames.frames(each))
        return found[second]


def coded(frames: Frames, settings: StreamSettings, begun: int = 0) -> ShownFrames:
    """A clip's frames as a model on a stream of these settings sees them; begun: as of `Stream`."""
    return frames if settings.codec is None else CodedFrames(frames, settings, begun)


def coded_row(frames: Sequence[Image.Image], settings: StreamSettings) -> tuple[Shown, ...]:
    """Frames in a row as a model on a stream of these settings sees them, if each is a second's."""
    if settings.codec is None:
        return tuple(frames)
    coder = FrameCoder(settings)
    return tuple(
        shown for second, each in enumerate(frames) for shown in coder.push(second, [each])
    )


def prepared(shown: Shown, prepare: Callable[[Image.Image], Any]) -> Any:
    """What `prepare` makes of the picture, marked as it was."""
    if isinstance(shown, Predicted):
        return Predicted(prepare(shown.frame))
    return prepare(shown)
