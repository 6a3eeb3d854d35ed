"""Files that hold no video that can be used: each is rejected with its reason."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import pytest

from joyvl_train.decoding import decoders
from joyvl_train.frames import (
    FrameError,
    open_video,
)
from joyvl_train.video import probe

from .videos import VARIABLE, make_video, write_sound


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("videos")


def bad_files(folder: Path) -> dict[str, Path]:
    good = make_video(
        folder / "good.mp4",
        [k / 10 for k in range(100)],
        g="10",
        crf="1",
        container={"movflags": "faststart"},
    )
    data = good.read_bytes()
    sound = folder / "sound.m4a"
    with av.open(str(sound), "w") as container:
        write_sound(container, container.add_stream("aac", rate=16000), 0.0, 2.0)
    made = {
        "empty file": b"",
        "not a video": b"a letter to somebody\n" * 200,
        "truncated": data[: len(data) // 2],
        "header cut": data[: data.index(b"moov") + 100],
    }
    paths = {}
    for name, content in made.items():
        paths[name] = folder / f"{name}.mp4"
        paths[name].write_bytes(content)
    paths["no video stream"] = sound
    return paths


@pytest.fixture(scope="module")
def bad(folder) -> dict[str, Path]:
    return bad_files(folder)


@pytest.mark.parametrize("reason", ["empty file", "not a video", "truncated", "no video stream"])
def test_bad_files_are_rejected_with_their_reason(bad, tmp_path, reason):
    with pytest.raises(FrameError) as error:
        open_video(bad[reason], 1, cache_dir=tmp_path)
    assert error.value.reason == reason
    assert str(bad[reason]) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cut_header_is_no_video(bad, tmp_path):
    with pytest.raises(FrameError) as error:
        open_video(bad["header cut"], 1, cache_dir=tmp_path)
    assert error.value.reason in ("not a video", "no video stream", "no frames", "truncated")


def test_a_truncated_matroska_file_is_rejected(folder, tmp_path):
    path = make_video(folder / "long.mkv", VARIABLE, base=Fraction(1, 1000))
    cut = folder / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(FrameError, match="truncated"):
        open_video(cut, 1, cache_dir=tmp_path)


def test_damaged_pictures_are_counted_and_rejected(bad, folder, tmp_path):
    data = bytearray((folder / "good.mp4").read_bytes())
    start = data.index(b"mdat") + 3000
    for place in range(start, len(data), 499):
        data[place] ^= 0xFF
    path = folder / "damaged.mp4"
    path.write_bytes(bytes(data))
    assert decoders(probe(folder / "good.mp4")) == ("decord", "pyav")
    assert decoders(probe(path)) == ("pyav",), "decord would conceal the damage"
    with pytest.raises(FrameError) as error:
        open_video(path, 1, cache_dir=tmp_path)
    assert error.value.reason == "damaged"
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_little_damage_is_let_pass_and_told(folder, tmp_path):
    times = [k / 10 for k in range(300)]
    path = make_video(folder / "little.mp4", times, g="10", crf="1")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place = next(packet.pos for packet in packets[200:] if packet.is_keyframe)
    for k in range(place + 8, place + 60):
        data[k] ^= 0xFF
    path.write_bytes(bytes(data))
    video = open_video(path, 1, cache_dir=tmp_path)
    assert video.decoder == "pyav" and 1 <= video.damaged <= 3
    assert open_video(path, 1, cache_dir=tmp_path).damaged == video.damaged


def test_raw_streams_hold_no_time_stamps(folder, tmp_path):
    path = make_video(folder / "raw.h264", [k / 10 for k in range(20)], bf="0")
    with pytest.raises(FrameError) as error:
        open_video(path, 1, cache_dir=tmp_path)
    assert error.value.reason == "no time stamps"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere.mp4", "missing file"),
        ("http://example.org/a.mp4", "missing file"),
        ("concat:whole.mp4|good.mp4", "missing file"),
        ("", "missing file"),
        ("a\0b.mp4", "missing file"),
        ("a\ud800.mp4", "missing file"),
        (".", "no regular file"),
        ("/dev/zero", "no regular file"),
    ],
)
def test_only_regular_files_are_opened(tmp_path, name, reason):
    with pytest.raises(FrameError) as error:
        open_video(name, 1, cache_dir=tmp_path)
    assert error.value.reason == reason


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(FrameError, match="no regular file"):
        open_video(tmp_path / "pipe.mp4", 1, cache_dir=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_are_rejected(folder, tmp_path):
    path = make_video(tmp_path / "locked.mp4", [0.0, 0.5])
    path.chmod(0)
    with pytest.raises(FrameError, match="unreadable file"):
        open_video(path, 1, cache_dir=tmp_path)


def test_playlists_can_not_open_other_files(folder, tmp_path):
    target = make_video(tmp_path / "target.ts", [k / 10 for k in range(20)])
    playlists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile {target}\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(FrameError) as error:
            open_video(tmp_path / name, 1, cache_dir=tmp_path)
        assert error.value.reason == "not a video", name


def test_absurd_sizes_are_rejected(folder, tmp_path, monkeypatch):
    path = make_video(tmp_path / "wide.mp4", [0.0, 0.5], size=(640, 480))
    monkeypatch.setattr("joyvl_train.video.MAX_PIXELS", 640 * 479)
    with pytest.raises(FrameError, match="too many pixels"):
        open_video(path, 1, cache_dir=tmp_path)


def test_absurd_lengths_are_rejected(tmp_path):
    path = make_video(tmp_path / "days.mkv", [0.0, 90_000.0], base=Fraction(1, 1000), bf="0")
    with pytest.raises(FrameError, match="bad duration"):
        open_video(path, 1, cache_dir=tmp_path)
