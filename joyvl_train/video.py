"""Video files: which are opened, and what their packets say before anything is decoded."""

from __future__ import annotations

import itertools
import math
import os
import stat
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from PIL import Image

from joyvl_train.timeline import MAX_SECONDS, TimelineError

MAX_PIXELS = 8192 * 8192
"""A picture of more pixels is taken for an attack or a broken header."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,ogg,asf,gif,h264,hevc,"
    "mp3,wav,flac,aac"
)
"""The containers that are opened. Playlists (hls, dash, concat) name other files and are not."""

_DECORD_FORMATS = {"mov", "matroska"}
# All decoders decode these to the same bits, so that it doesn't show which one it was.
_DECORD_CODECS = {"h264", "hevc", "vp8", "vp9"}
_DECLARES_LENGTH = {"mov", "matroska", "avi"}

# Rows of a display matrix (a, b, c, d: x' = a x + c y, y' = b x + d y, y downwards) and what turns
# the coded picture into the one that is shown.
_TURNS = {
    (1, 0, 0, 1): None,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


class FrameError(TimelineError):
    """Pictures that can't be had. `reason` is a short fixed phrase that is counted:

    missing file, no regular file, unreadable file, empty file, not a video, no video stream,
    no frames, no time stamps, bad duration, too many pixels, truncated, damaged, odd rotation,
    unknown codec, unreadable picture, outside the folder, no source, past the end.
    """


def regular_file(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a regular file that isn't empty; URLs, folders and devices raise.

    An absolute path can't be read as a protocol ("concat:...") by a decoder.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise FrameError("missing file", repr(text))
    full = Path(os.path.abspath(text))
    try:
        status = full.stat()
    except (FileNotFoundError, NotADirectoryError, UnicodeEncodeError):
        raise FrameError("missing file", repr(text)) from None
    except OSError as error:
        raise FrameError("unreadable file", f"{text!r}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise FrameError("no regular file", repr(text))
    if status.st_size == 0:
        raise FrameError("empty file", repr(text))
    if not os.access(full, os.R_OK):
        raise FrameError("unreadable file", f"{text!r}: Permission denied")
    return full


@dataclass(frozen=True)
class Probe:
    """What the packets of a file say, before anything is decoded.

    `zero` is the time stamp of the clip's start and `end` that of its video's end, in seconds;
    `times` the packets' time stamps in `time_base` units where decord can be trusted with the
    file, else None.
    """

    path: Path
    format: str
    codec: str
    size: tuple[int, int]
    pixel_aspect: Fraction
    turn: Image.Transpose | None
    time_base: Fraction
    zero: Fraction
    end: Fraction
    packets: int
    times: array[int] | None

    @property
    def duration(self) -> float:
        return float(self.end - self.zero)

    @property
    def seconds(self) -> int:
        return math.ceil(self.duration - 1e-6)

    @property
    def display_size(self) -> tuple[int, int]:
        """Width and height as shown: pixel aspect and rotation applied."""
        width, height = self.size
        width = max(1, round(width * self.pixel_aspect))
        sideways = self.turn in (
            Image.Transpose.ROTATE_90,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.TRANSVERSE,
        )
        return (height, width) if sideways else (width, height)


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError(f"a video may not open another file: {url!r}")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An input container that reads this one file and nothing else."""
    with path.open("rb") as file:
        try:
            container = av.open(
                file, options={"format_whitelist": FORMATS}, buffer_size=1 << 18, io_open=_refuse
            )
        except (av.FFmpegError, PermissionError) as error:
            raise FrameError("not a video", f"{str(path)!r}: {error.strerror}") from None
        with container:
            yield container


class _Scan:
    """What the packets of a container say about its video stream."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.packets = 0
        self.times: array[int] = array("q")
        self.ends: dict[int, Fraction] = {}
        self.odd = False  # packets without a time stamp, not to be shown, or shown before their key
        self.reordered = False
        self.last = 0
        self.last_length = 0
        self.key = 0

    def add(self, packet: Any) -> None:
        if packet.size == 0:
            return
        index = packet.stream.index
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and not packet.is_discard:
            end = (stamp + (packet.duration or 0)) * packet.time_base
            self.ends[index] = max(end, self.ends.get(index, end))
        if index != self.stream.index:
            return
        self.packets += 1
        self.odd |= packet.pts is None or packet.is_discard
        if packet.pts is None or packet.is_discard:
            return
        self.key = packet.pts if packet.is_keyframe else self.key
        self.odd |= bool(self.times) and packet.pts < self.key  # where decord miscounts
        if self.times and packet.pts < self.last:
            self.reordered = True
        else:
            self.last, self.last_length = packet.pts, packet.duration or 0
        self.times.append(packet.pts)

    @property
    def end(self) -> Fraction:
        """When the last frame ends, in seconds.

        Packets in another order than their frames carry the lengths of decoding steps; there, and
        where the container gives no length, the last frame is as long as the mean one at most.
        """
        if not self.times:
            return self.ends[self.stream.index]
        base = Fraction(self.stream.time_base)
        length = self.last_length * base
        if len(self.times) > 1:
            mean = (self.last - min(self.times)) * base / (len(self.times) - 1)
        else:
            mean = 1 / Fraction(self.stream.average_rate or 25)
        if length <= 0 or (self.reordered and length > mean):
            length = mean
        return self.last * base + length


def probe(path: str | os.PathLike[str]) -> Probe:
    """Read a video's packets through, decoding one frame. Raises `FrameError`.

    Rejects what can't be stepped by the second: no video stream, no time stamps, a length that is
    no length, more than `MAX_PIXELS`, and a file cut short of the length that its header declares.
    """
    full = regular_file(path)
    where = repr(str(full))
    with opened(full) as container:
        stream = video_stream(container, where)
        codec = stream.codec_context
        if codec is None:
            raise FrameError("unknown codec", where)
        size = (codec.width, codec.height)
        codec_name = codec.name
        if codec.width * codec.height > MAX_PIXELS:
            raise FrameError("too many pixels", f"{where}: {codec.width}x{codec.height}")
        scan = _Scan(stream)
        try:
            for packet in container.demux():
                scan.add(packet)
        except av.FFmpegError as error:
            raise FrameError("truncated", f"{where}: {error.strerror}") from None
        format_name = container.format.name.split(",")[0]
        if scan.packets == 0 or not codec.width:
            raise FrameError("no frames", where)
        if stream.index not in scan.ends:
            raise FrameError("no time stamps", where)
        zero = _start(container)
        if format_name == "avi" and scan.times:
            # AVI holds no presentation times; what is derived for it starts late by the delay
            # of the decoder.
            zero = min(scan.times) * Fraction(stream.time_base)
        end = scan.end
        if not 0 < end - zero <= MAX_SECONDS:
            raise FrameError("bad duration", f"{where}: {float(end - zero):.3f} s")
        if format_name in _DECLARES_LENGTH and container.duration:
            declared = Fraction(container.duration, av.time_base)
            there = max(end, *scan.ends.values()) - zero
            if there < declared - 1 - 1 / Fraction(stream.average_rate or 1):
                detail = f"{where}: {float(there):.1f} s of {float(declared):.1f} s are there"
                raise FrameError("truncated", detail)
        pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
        time_base = Fraction(stream.time_base)
        bits = codec.format.components[0].bits if codec.format else 0
    turn = _turn(full, where)
    trusted = (
        not scan.odd
        and turn is None
        and bits == 8
        and format_name in _DECORD_FORMATS
        and codec_name in _DECORD_CODECS
    )
    times = array("q", sorted(scan.times)) if trusted else None
    if times is not None and any(a >= b for a, b in itertools.pairwise(times)):
        times = None
    return Probe(
        path=full,
        format=format_name,
        codec=codec_name,
        size=size,
        pixel_aspect=pixel_aspect if Fraction(1, 8) <= pixel_aspect <= 8 else Fraction(1),
        turn=turn,
        time_base=time_base,
        zero=zero,
        end=end,
        packets=scan.packets,
        times=times,
    )


def video_stream(container: Any, where: str) -> Any:
    """The first video stream that is no cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise FrameError("no video stream", where)


def _start(container: Any) -> Fraction:
    """Where time 0 is: the earliest start of sound or picture, a negative pre-roll apart."""
    starts = [
        s.start_time * s.time_base
        for s in container.streams
        if s.type in ("video", "audio") and s.start_time is not None
    ]
    return max(Fraction(0), min(starts, default=Fraction(0)))


def _turn(path: Path, where: str) -> Image.Transpose | None:
    """What the display matrix asks for; it is read from the first frame, where decoders put it."""
    with opened(path) as container:
        for frame in decoded(container, video_stream(container, where), [0]):
            data = frame.side_data.get(SideData.DISPLAYMATRIX)
            if data is None:
                return None
            a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
            signs = tuple((v > 0) - (v < 0) if abs(v) > 1000 else 0 for v in (a, b, c, d))
            if signs not in _TURNS:
                raise FrameError("odd rotation", f"{where}: {frame.rotation} degrees")
            return _TURNS[signs]
    raise FrameError("no frames", where)


class DamagedPacketError(Exception):
    """A packet does not decode; where frames are decoded side by side none after it would."""


def decoded(
    container: Any, stream: Any, damage: list[int], *, side_by_side: bool = False
) -> Iterator[Any]:
    """The frames that decode, in the order shown; `damage[0]` counts the packets that don't.

    Damaged pictures are errors here, not concealed. Packets before the first good frame are not
    counted: a recording that starts inside a group of pictures can't show those.

    side_by_side: several frames at a time, which is faster; ends with `DamagedPacketError` at the
    first packet that does not decode: FFmpeg then gives up all that come after, sound ones too.
    """
    stream.thread_type = "AUTO" if side_by_side else "SLICE"
    stream.codec_context.options = {"err_detect": "explode"}
    begun = False
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            if side_by_side:
                raise DamagedPacketError from error
            damage[0] += 1
            return
        if packet is None:
            return
        try:
            for frame in packet.decode():
                begun = True
                yield frame
        except av.FFmpegError as error:
            if side_by_side:
                raise DamagedPacketError from error
            damage[0] += begun
