"""A clip that is a part of its video: its pictures are those of the video, and little else is
decoded."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyvl_train import decoding
from joyvl_train.decoding import Decoding
from joyvl_train.frame_cache import STRETCH
from joyvl_train.frames import FrameError, is_part, open_video
from joyvl_train.video import probe

from .videos import make_video, number_of

LENGTH = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("long")


@pytest.fixture(scope="module")
def long(folder) -> Path:
    """Four minutes, four frames a second, a key frame in every 30."""
    times = [k / 4 for k in range(4 * LENGTH)]
    return make_video(folder / "long.mp4", times, g="30")


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The number of frames that PyAV has decoded, in a list of its own."""
    count = [0]
    frames = decoding.decoded

    def counted(*args, **kwargs):
        for frame in frames(*args, **kwargs):
            count[0] += 1
            yield frame

    monkeypatch.setattr(decoding, "decoded", counted)
    return count


@given(
    gaps=st.lists(st.integers(1, 4000), min_size=2, max_size=30),
    rate=st.integers(1, 3),
    start=st.integers(0, 60),
    length=st.integers(1, 40),
    bframes=st.sampled_from(["0", "2"]),
)
@settings(max_examples=15, deadline=None)
def test_seconds_of_any_video_are_decoded_as_in_the_whole(
    tmp_path_factory, gaps, rate, start, length, bframes
):
    times = [sum(gaps[:k]) / 1000 for k in range(len(gaps))]
    path = tmp_path_factory.mktemp("any") / "any.mkv"
    make_video(path, times, base=Fraction(1, 1000), bf=bframes, g="3")
    source = probe(path)
    start %= source.seconds
    whole = list(Decoding(source, rate, "pyav"))[start * rate : (start + length) * rate]
    part = list(Decoding(source, rate, "pyav", range(start, start + length)))
    told = [[None if i is None else number_of(i) for i in pictures] for pictures in (whole, part)]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("closed.mp4", {"bf": "3"}),
        # Pictures that are shown before a key frame, and decoded after it.
        ("open.mp4", {"x264-params": "open-gop=1:bframes=3:keyint=20"}),
        ("open.mkv", {"x264-params": "open-gop=1:bframes=3:keyint=20"}),
        ("sent.ts", {"bf": "2", "g": "20"}),  # has no index to seek by
        ("turned.mp4", {"rotation": 90, "g": "20"}),
        ("old.mp4", {"codec": "mpeg4"}),
    ],
)
def test_a_clip_late_in_a_video_shows_what_the_video_shows(folder, tmp_path, name, options):
    times = [k / 5 for k in range(5 * 90)]
    base = Fraction(1, 1000) if name in ("open.mkv", "old.mp4") else Fraction(1, 90000)
    path = make_video(folder / name, times, base=base, **options)
    whole = open_video(path, 2, cache_dir=tmp_path / "whole")
    clip = open_video(path, 2, cache_dir=tmp_path / "part", start=61, duration=10.5)
    assert (clip.start, clip.duration, clip.seconds) == (61, 10.5, 11)
    assert clip.size == whole.size
    assert [clip.encoded(t) for t in range(11)] == [whole.encoded(61 + t) for t in range(11)]
    assert [number_of(clip.frames(t)[-1]) for t in range(10)] == [
        (5 * (62 + t) - 1) % 25 for t in range(10)
    ]
    with pytest.raises(IndexError):
        clip.frames(11)
    again = pickle.loads(pickle.dumps(clip))
    assert number_of(again.frames(3)[0]) == number_of(whole.frames(64)[0])


def test_what_lies_before_a_late_clip_is_neither_decoded_nor_kept(long, tmp_path, decoded):
    open_video(long, 1, cache_dir=tmp_path / "whole", decoder="pyav")
    everything = decoded[0]
    assert everything >= 4 * LENGTH
    decoded[0] = 0
    clip = open_video(long, 1, cache_dir=tmp_path, start=200, duration=20)
    # Second t shows the last of its four frames.
    assert [number_of(clip.frames(t)[0]) for t in (0, 19)] == [803 % 25, 879 % 25]
    # Two stretches, each from the key frame before it on.
    assert decoded[0] <= 2 * (4 * STRETCH + 30 + 1)
    kept = sum(path.stat().st_size for path in (tmp_path / "frames").rglob("*.frames"))
    whole = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*.frames"))
    assert kept < whole / 2


def test_clips_of_one_stretch_share_what_was_decoded(long, tmp_path, decoded):
    open_video(long, 1, cache_dir=tmp_path, start=130, duration=20)
    files = sorted((tmp_path / "frames").rglob("*.frames"))
    decoded[0] = 0
    clip = open_video(long, 1, cache_dir=tmp_path, start=129, duration=7.25)
    assert decoded[0] == 0 and clip.seconds == 8
    open_video(long, 1, cache_dir=tmp_path, start=150, duration=20)
    assert len(list((tmp_path / "frames").rglob("*.frames"))) == len(files) + 1


def test_the_cache_of_the_whole_serves_its_parts_and_says_the_same(long, tmp_path, decoded):
    part = open_video(long, 1, cache_dir=tmp_path / "part", start=100, duration=30)
    whole = open_video(long, 1, cache_dir=tmp_path)
    decoded[0] = 0
    clip = open_video(long, 1, cache_dir=tmp_path, start=100, duration=30)
    assert decoded[0] == 0 and clip.seconds == part.seconds == 30
    for second in range(30):
        assert clip.encoded(second) == part.encoded(second) == whole.encoded(100 + second)


def test_a_clip_of_a_damaged_video_is_the_same_whether_the_whole_is_kept_or_not(folder, tmp_path):
    path = make_video(folder / "little.mp4", [k / 4 for k in range(4 * 300)], g="30", crf="1")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    broken = next(packet for packet in packets[4 * 140 :] if not packet.is_keyframe)
    for k in range(broken.pos + 6, broken.pos + broken.size):
        data[k] ^= 0xFF
    path.write_bytes(bytes(data))
    apart = open_video(path, 1, cache_dir=tmp_path / "part", start=130, duration=30)
    whole = open_video(path, 1, cache_dir=tmp_path)
    beside = open_video(path, 1, cache_dir=tmp_path, start=130, duration=30)
    assert 1 <= apart.damaged <= whole.damaged <= 2  # what comes after decodes
    assert beside.damaged == apart.damaged
    for second in range(30):
        assert beside.encoded(second) == apart.encoded(second)


def test_a_clip_that_is_most_of_its_video_is_read_from_the_whole(long, tmp_path):
    clip = open_video(long, 1, cache_dir=tmp_path, start=40)
    assert (clip.start, clip.seconds) == (40, LENGTH - 40)
    assert len(list((tmp_path / "frames").rglob("*.frames"))) == 1
    assert is_part(0, 99.0, 200.0) and is_part(101, None, 200.0) and is_part(150, 500.0, 200.0)
    assert not is_part(0, None, 200.0) and not is_part(50, 120.0, 200.0)


def test_a_long_clip_keeps_few_files_open(long, tmp_path):
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    clip = open_video(long, 1, cache_dir=tmp_path, start=20, duration=115)
    expected = [clip.encoded(t) for t in range(115)]
    assert len(list((tmp_path / "frames").rglob("*.frames"))) == 5
    assert opened() - before <= 2
    assert [clip.encoded(t) for t in reversed(range(115))] == expected[::-1]
    assert opened() - before <= 2


def test_a_stretch_that_got_lost_or_damaged_is_built_anew(long, tmp_path):
    clip = open_video(long, 1, cache_dir=tmp_path, start=70, duration=5)
    expected = [clip.encoded(t) for t in range(5)]
    (file,) = (tmp_path / "frames").rglob("*.frames")
    good = file.read_bytes()
    clip.close()
    file.unlink()
    assert [clip.encoded(t) for t in range(5)] == expected and file.read_bytes() == good
    file.write_bytes(good[:40] + bytes([good[40] ^ 1]) + good[41:])
    clip.close()
    first = open_video(long, 1, cache_dir=tmp_path, start=64, duration=3)
    assert np.asarray(first.frames(0)[0]).shape == (48, 64, 3)
    assert file.read_bytes() == good


def test_a_clip_that_begins_after_the_end_is_told(long, tmp_path):
    with pytest.raises(FrameError, match="240 s of 240.000 s") as caught:
        open_video(long, 1, cache_dir=tmp_path, start=LENGTH)
    assert caught.value.reason == "past the end"
