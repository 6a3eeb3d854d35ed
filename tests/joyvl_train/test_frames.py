"""Pictures by the second, from real files that these tests make."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyvl_train import frame_cache
from joyvl_train.decoding import Decoding, decoders
from joyvl_train.frames import (
    CacheError,
    FrameError,
    auto_rate,
    content_hash,
    open_video,
    target_size,
)
from joyvl_train.video import probe

from .videos import VARIABLE, grey, make_video, number_of


def shown(path: Path, rate: int, decoder: str) -> list[int | None]:
    pictures = Decoding(probe(path), rate, decoder)
    return [None if image is None else number_of(image) for image in pictures]


def by_rule(times: list[float], rate: int, seconds: int) -> list[int | None]:
    """The last frame before each instant (DESIGN 4), by brute force."""
    found: list[int | None] = []
    for slot in range(seconds * rate):
        before = [k for k, time in enumerate(times) if time * rate < slot + 1 - 1e-7]
        found.append(before[-1] % 25 if before else None)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.mark.parametrize("rate", [1, 2, 3])
@pytest.mark.parametrize("name", ["even.mp4", "variable.mp4", "variable.mkv"])
def test_both_decoders_take_the_last_frame_before_each_instant(folder, name, rate):
    times = [k / 5 for k in range(22)] if name == "even.mp4" else VARIABLE
    base = Fraction(1, 1000) if name.endswith("mkv") else Fraction(1, 90000)
    path = folder / name
    if not path.exists():
        make_video(path, times, base=base)
    source = probe(path)
    assert decoders(source) == ("decord", "pyav")
    wanted = by_rule(times, rate, source.seconds)
    assert shown(path, rate, "decord") == wanted
    assert shown(path, rate, "pyav") == wanted


def test_a_frame_on_the_second_belongs_to_the_next_one(folder):
    path = make_video(folder / "whole.mp4", [0.0, 1.0, 2.0], bf="0")
    assert shown(path, 1, "pyav") == [0, 1, 2]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 1500), min_size=2, max_size=18), st.sampled_from([1, 2, 4]))
def test_any_time_stamps_and_any_rate_agree_with_the_rule(tmp_path_factory, gaps, rate):
    times = [sum(gaps[:k]) / 1000 for k in range(len(gaps))]
    path = tmp_path_factory.mktemp("any") / "any.mkv"
    make_video(path, times, base=Fraction(1, 1000), bf="0")
    source = probe(path)
    wanted = by_rule(times, rate, source.seconds)
    assert shown(path, rate, "pyav") == wanted
    if source.times is not None:
        assert shown(path, rate, "decord") == wanted


def test_seeking_over_many_key_frames_finds_the_frames_that_were_asked_for(folder):
    times = [k / 10 for k in range(240)]
    path = make_video(folder / "keys.mp4", times, size=(32, 32), g="7")
    pictures = list(Decoding(probe(path), 1, "decord"))
    same = list(Decoding(probe(path), 1, "pyav"))
    for one, other in zip(pictures, same, strict=True):
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).mean() < 3


def test_rotation_is_applied(folder, tmp_path):
    times = [k / 10 for k in range(10)]
    for angle, red in ((90, (-5, 5)), (180, (-5, -5)), (-90, (5, -5))):
        path = make_video(folder / f"turned{angle}.mp4", times, rotation=angle)
        source = probe(path)
        sideways = abs(angle) == 90
        assert source.display_size == ((48, 64) if sideways else (64, 48))
        video = open_video(path, 1, cache_dir=tmp_path)
        (picture,) = video.frames(0)
        assert video.size == picture.size == source.display_size
        pixel = np.asarray(picture)[red[0], red[1]]
        assert pixel[0] > 200 and pixel[1] < 60, f"red is not where {angle} degrees puts it"


def test_odd_sizes_and_other_pixel_forms_are_read(folder, tmp_path):
    path = make_video(folder / "odd.mkv", [0, 0.5, 1.5], size=(63, 47), pix_fmt="yuv444p")
    assert open_video(path, 1, cache_dir=tmp_path).frames(1)[0].size == (63, 47)
    ten_bits = make_video(folder / "ten.mkv", [0, 0.5], pix_fmt="yuv420p10le")
    assert decoders(probe(ten_bits)) == ("pyav",)
    assert open_video(ten_bits, 1, cache_dir=tmp_path).decoder == "pyav"


def test_oblong_pixels_are_shown_as_they_are_meant(folder, tmp_path):
    path = folder / "oblong.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        for number in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(number, 64, 48), "rgb24")))
        container.mux(stream.encode())
    assert open_video(path, 1, cache_dir=tmp_path).size == (128, 48)


def test_time_starts_with_the_earliest_stream(folder):
    late = make_video(folder / "late.ts", [2 + k / 10 for k in range(30)])
    assert probe(late).duration == pytest.approx(3.0, abs=0.04)
    assert shown(late, 1, "pyav") == [9, 19, 29 % 25]
    after = make_video(folder / "after.mkv", [1.6, 2.2, 2.6], sound=(0.0, 3.0), bf="0")
    assert shown(after, 2, "pyav")[:6] == [None, None, None, 0, 1, 2]


def test_seconds_before_the_first_picture_hold_none(folder, tmp_path):
    path = make_video(folder / "dark.mkv", [1.6, 2.2, 2.6], sound=(0.0, 3.0), bf="0")
    video = open_video(path, 2, cache_dir=tmp_path)
    assert [len(video.frames(t)) for t in range(video.seconds)] == [0, 1, 2]


def test_avi_starts_at_its_first_frame(folder):
    path = make_video(
        folder / "a.avi", [k / 30 for k in range(60)], base=Fraction(1, 30), bf="0", crf="1"
    )
    source = probe(path)
    assert source.seconds == 2 and decoders(source) == ("pyav",)


def test_sound_past_the_last_picture_adds_no_seconds(folder):
    path = make_video(folder / "sound.mp4", [k / 10 for k in range(20)], sound=(0.0, 5.0))
    assert probe(path).seconds == 2


# The cache.


@pytest.fixture(scope="module")
def clip(folder) -> Path:
    return make_video(folder / "clip.mp4", [k / 10 for k in range(55)])


def test_a_second_pass_reads_the_cache_and_decodes_nothing(clip, tmp_path, monkeypatch):
    first = open_video(clip, 2, cache_dir=tmp_path, size=32, multiple=8)
    assert (first.seconds, first.size, first.decoder) == (6, (32, 24), "decord")
    before = [number_of(image) for t in range(6) for image in first.frames(t)]
    monkeypatch.setattr(frame_cache, "probe", None)
    again = open_video(clip, 2, cache_dir=tmp_path, size=32, multiple=8)
    assert [number_of(image) for t in range(6) for image in again.frames(t)] == before
    assert before == by_rule([k / 10 for k in range(55)], 2, 6)
    assert again.duration == pytest.approx(5.5)
    with pytest.raises(IndexError, match="second 6"):
        again.frames(6)


def test_another_view_is_another_file(clip, tmp_path):
    for settings_ in ({}, {"size": 32}, {"size": (32, 32)}, {"quality": 50}, {"multiple": 16}):
        open_video(clip, 1, cache_dir=tmp_path, **settings_)
    assert len(list(tmp_path.rglob("*.frames"))) == 5


def test_the_cache_follows_the_content_not_the_name(clip, tmp_path):
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(clip.read_bytes())
    open_video(clip, 1, cache_dir=tmp_path / "c")
    open_video(moved, 1, cache_dir=tmp_path / "c")
    assert len(list((tmp_path / "c").rglob("*.frames"))) == 1
    make_video(moved, [k / 10 for k in range(31)])
    assert open_video(moved, 1, cache_dir=tmp_path / "c").seconds == 4


def test_the_hash_is_remembered_until_the_file_changes(clip, tmp_path):
    path = tmp_path / "old.mp4"
    path.write_bytes(clip.read_bytes())
    os.utime(path, (1_000_000_000, 1_000_000_000))
    digest = content_hash(path, tmp_path)
    (memo,) = tmp_path.glob("hashes/*/*.json")
    memo.write_text(memo.read_text().replace(digest, "remembered"))
    assert content_hash(path, tmp_path) == "remembered"
    os.utime(path, (1_000_000_001, 1_000_000_001))
    assert content_hash(path, tmp_path) == digest
    memo.write_text("{broken")
    assert content_hash(path, tmp_path) == digest


@pytest.mark.parametrize("damage", ["cut", "index", "trailer", "empty"])
def test_a_broken_cache_file_is_built_anew(clip, tmp_path, damage):
    open_video(clip, 1, cache_dir=tmp_path)
    (cache,) = tmp_path.rglob("*.frames")
    good = cache.read_bytes()
    place = {"index": len(good) - 120, "trailer": len(good) - 3}.get(damage, 0)
    broken = {"cut": good[: len(good) // 2], "empty": b""}.get(
        damage, good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
    )
    cache.write_bytes(broken)
    assert number_of(open_video(clip, 1, cache_dir=tmp_path).frames(0)[0]) == 9
    assert cache.read_bytes() == good


def test_a_broken_picture_is_built_anew_when_it_is_read(clip, tmp_path):
    open_video(clip, 1, cache_dir=tmp_path)
    (cache,) = tmp_path.rglob("*.frames")
    good = cache.read_bytes()
    cache.write_bytes(good[:40] + bytes([good[40] ^ 1]) + good[41:])
    video = open_video(clip, 1, cache_dir=tmp_path)
    assert number_of(video.frames(0)[0]) == 9
    assert cache.read_bytes() == good


def test_a_video_that_changed_under_a_broken_cache_is_told(tmp_path):
    path = make_video(tmp_path / "v.mp4", [k / 10 for k in range(20)])
    video = open_video(path, 1, cache_dir=tmp_path / "c")
    make_video(path, [k / 10 for k in range(35)])
    video.close()
    for cache in tmp_path.rglob("*.frames"):
        cache.unlink()
    with pytest.raises(FrameError, match="changed"):
        video.frames(0)


def test_frames_travel_to_workers(clip, tmp_path):
    video = open_video(clip, 1, cache_dir=tmp_path)
    copy = pickle.loads(pickle.dumps(video))
    assert [number_of(copy.frames(t)[0]) for t in range(5)] == [9, 19, 4, 14, 24]


def test_writers_side_by_side_leave_one_whole_file(clip, tmp_path):
    results, threads = [], []
    for _ in range(4):
        threads.append(
            threading.Thread(
                target=lambda: results.append(open_video(clip, 1, cache_dir=tmp_path).frames(5))
            )
        )
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len({np.asarray(pictures[0]).tobytes() for pictures in results}) == 1
    assert [path.suffix for path in (tmp_path / "frames").rglob("*.*")] == [".frames"]


def test_a_killed_writer_leaves_nothing_that_is_taken_for_a_cache(clip, tmp_path, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(frame_cache.json, "dumps", killed)
        with pytest.raises(KeyboardInterrupt):
            open_video(clip, 1, cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.frames"))
    assert open_video(clip, 1, cache_dir=tmp_path).seconds == 6


def test_a_folder_that_can_not_be_written_is_a_users_error(clip, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CacheError, match="name another folder"):
        open_video(clip, 1, cache_dir=tmp_path / "file")


def test_a_full_disk_is_told_and_leaves_no_rest(clip, tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    content_hash(clip, tmp_path)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CacheError, match="No space left on device"):
        open_video(clip, 1, cache_dir=tmp_path)
    assert not list((tmp_path / "frames").rglob("*.*"))


@pytest.mark.parametrize(
    "view",
    [
        {"frames_per_second": 0},
        {"frames_per_second": 61},
        {"size": 0},
        {"size": (0, 5)},
        {"size": 10**6},
        {"size": (30, 30), "multiple": 32},
        {"multiple": 0},
        {"quality": 0},
    ],
)
def test_settings_that_are_none_are_named(clip, tmp_path, view):
    with pytest.raises(ValueError, match="frame|frames|quality"):
        open_video(clip, cache_dir=tmp_path, **view)


LONG = """
import resource, sys
sys.path.insert(0, sys.argv[3])
from joyvl_train.frames import open_video
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
video = open_video(sys.argv[1], 1, cache_dir=sys.argv[2])
for second in range(0, video.seconds, 60):
    assert len(video.frames(second)) == 1
print(video.seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""


def test_an_hour_of_video_needs_little_memory(tmp_path):
    """An hour at 2 frames a second would be 83 MB of pictures at 96x80, all held at once."""
    path = tmp_path / "hour.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        pictures = [av.VideoFrame.from_ndarray(grey(k, 96, 80), "rgb24") for k in range(20)]
        for number in range(3600 * 2):
            frame = pictures[number % 20]
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", LONG, str(path), str(tmp_path / "c"), root]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, grown = map(int, done.stdout.split())
    assert seconds == 3600
    assert grown < 60 * 1024, f"{grown} KiB"  # the decoders' own libraries and buffers


# Sizes and rates.


@settings(deadline=None)
@given(
    st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2000), st.sampled_from([1, 8, 28])
)
def test_target_sizes_are_multiples_and_keep_the_longest_side(width, height, side, multiple):
    sides = target_size(width, height, side, multiple)
    assert all(s % multiple == 0 and s >= multiple for s in sides)
    assert max(sides) <= max(min(side, max(width, height)) + multiple / 2, multiple)


def test_rates_by_length():
    assert [auto_rate(s) for s in (0.5, 63.99, 64, 159.9, 160, 7200)] == [4, 4, 2, 2, 1, 1]


def test_auto_rate_takes_the_clips_length(clip, tmp_path):
    video = open_video(clip, "auto", cache_dir=tmp_path)
    assert video.frames_per_second == 4 and len(video.frames(0)) == 4
    assert open_video(clip, "auto", cache_dir=tmp_path).frames_per_second == 4
