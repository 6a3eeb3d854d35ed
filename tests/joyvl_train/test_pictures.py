"""Pictures on disk: read upright, at their places in time, and from their folder alone."""

from __future__ import annotations

import pytest
from PIL import Image

from joyvl_train.frames import (
    FrameError,
    ImageFrames,
    inside,
    picture_size,
    read_picture,
)

from .videos import grey, number_of


@pytest.fixture
def pictures(tmp_path) -> list[str]:
    names = []
    for k in range(7):
        names.append(f"{k}.png")
        Image.fromarray(grey(k, 40, 30)).save(tmp_path / names[-1])
    return names


def test_pictures_at_their_own_rate_are_each_used_once(pictures, tmp_path):
    frames = ImageFrames(pictures, 2.0, 2, root=tmp_path)
    assert frames.seconds == 4 and frames.duration == 3.5
    shown = [[number_of(image) for image in frames.frames(t)] for t in range(4)]
    assert shown == [[0, 1], [2, 3], [4, 5], [6, 6]]
    with pytest.raises(IndexError):
        frames.frames(4)


def test_pictures_at_another_rate_follow_the_rule(pictures, tmp_path):
    frames = ImageFrames(pictures, 2.0, 1, root=tmp_path)
    assert [number_of(frames.frames(t)[0]) for t in range(4)] == [1, 3, 5, 6]
    slow = ImageFrames(pictures, 0.5, 1, root=tmp_path)
    assert [number_of(slow.frames(t)[0]) for t in range(5)] == [0, 0, 1, 1, 2]


def test_places_without_a_picture_stay_empty(pictures, tmp_path):
    frames = ImageFrames(["", pictures[1], "", ""], 2.0, 2, root=tmp_path)
    assert [len(frames.frames(t)) for t in range(2)] == [1, 0]


def test_pictures_are_upright_and_resized(tmp_path):
    image = Image.fromarray(grey(3, 40, 30))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees to see it
    image.save(tmp_path / "phone.jpg", exif=exif)
    assert read_picture(tmp_path / "phone.jpg").size == (30, 40)
    assert read_picture(tmp_path / "phone.jpg", 20, 4).size == (16, 20)
    assert picture_size(tmp_path / "phone.jpg", 20, 4) == (16, 20)
    Image.new("RGBA", (9, 9)).save(tmp_path / "a.png")
    Image.new("P", (9, 9)).save(tmp_path / "p.gif")
    Image.new("L", (9, 9)).save(tmp_path / "l.png")
    for name in ("a.png", "p.gif", "l.png"):
        assert read_picture(tmp_path / name).mode == "RGB"


def test_bad_pictures_are_rejected(pictures, tmp_path, monkeypatch):
    good = (tmp_path / pictures[0]).read_bytes()
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "run.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name in ("cut.png", "text.png", "run.eps"):
        with pytest.raises(FrameError) as error:
            read_picture(tmp_path / name)
        assert error.value.reason == "unreadable picture", name
    with pytest.raises(FrameError, match="missing file"):
        ImageFrames(["gone.png"], 1.0, root=tmp_path).check()
    monkeypatch.setattr("joyvl_train.pictures.MAX_PIXELS", 40)
    with pytest.raises(FrameError, match="too many pixels"):
        read_picture(tmp_path / pictures[0])


@pytest.mark.parametrize("path", ["../x.png", "/etc/passwd", "a/../../x.png", "", "a\0b"])
def test_paths_stay_inside_their_folder(tmp_path, path):
    with pytest.raises(FrameError, match="outside the folder"):
        inside(tmp_path, path)


def test_paths_inside_are_taken(tmp_path):
    assert inside(tmp_path, "a/./b/../c.png") == tmp_path / "a/c.png"
    assert inside(tmp_path, str(tmp_path / "a.png")) == tmp_path / "a.png"
    assert inside(tmp_path, "..a/b.png") == tmp_path / "..a/b.png"
