from pathlib import Path

import numpy as np
import pytest

from data_pipeline import packages
from data_pipeline.assets import keep_frames
from data_pipeline.world import backgrounds
from data_pipeline.world.backgrounds import Background, FootageError
from data_pipeline.world.scene import Cut, Key, Scene, Track
from data_pipeline.world.video import write_video


@pytest.mark.parametrize(
    ("kind", "name"),
    [("plain", name) for name in backgrounds.PLAIN]
    + [("texture", name) for name in backgrounds.TEXTURES],
)
def test_every_background_is_drawn_at_odd_sizes(kind: str, name: str) -> None:
    background = Background(kind, name, 3, (0.2, -0.1))  # type: ignore[arg-type]
    frame = backgrounds.draw(background, 2.0, 97, 41)
    assert frame.size == (97, 41) and frame.mode == "RGB"
    other = backgrounds.draw(Background(kind, name, 4), 2.0, 97, 41)  # type: ignore[arg-type]
    assert frame.tobytes() != other.tobytes()


@pytest.mark.parametrize("name", backgrounds.TEXTURES)
def test_textures_have_no_seam(name: str) -> None:
    tile = backgrounds._tile(name, 11).astype(float)
    for axis in (0, 1):
        inside = np.abs(np.diff(tile, axis=axis)).mean(axis=(1 - axis, 2))
        edge = np.abs(np.take(tile, 0, axis) - np.take(tile, -1, axis)).mean()
        assert edge <= inside.max() * 1.2 + 2


def test_a_texture_moves_as_told_and_comes_round() -> None:
    moving = Background("texture", "noise", 3, (0.25, 0.0))
    first, later = (np.asarray(backgrounds.draw(moving, t, 64, 64)) for t in (0.0, 1.0))
    assert np.array_equal(first[:, :48], later[:, 16:])
    assert np.array_equal(first, np.asarray(backgrounds.draw(moving, 4.0, 64, 64)))


def test_drawing_into_a_background_does_not_spoil_the_next() -> None:
    for background in (Background("plain", "sky"), Background("texture", "checks")):
        frame = backgrounds.draw(background, 0, 32, 32)
        kept = frame.tobytes()
        frame.paste((0, 0, 0), (0, 0, 32, 32))
        assert backgrounds.draw(background, 0, 32, 32).tobytes() == kept


def test_without_footage_there_is_none_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path))
    assert backgrounds.footage_clips() == []
    assert backgrounds.footage_clips("train") == []
    with pytest.raises(FootageError, match=r"data_pipeline\.assets footage.*texture"):
        backgrounds.draw(Background("footage", "campus"), 0, 32, 32)
    with pytest.raises(backgrounds.BackgroundError, match="holiday"):
        backgrounds.footage_clips("holiday")


@pytest.fixture
def coin_clip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    """The clip "coin", replaced by two seconds of a red star that crosses a white frame."""
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path))
    path = (Key(0, 0.1, 0.5, 0.5), Key(2, 0.9, 0.5, 0.5))
    scene = Scene(
        160,
        120,
        2.0,
        1,
        (Cut(0, Background("plain", "white")),),
        (Track("star", 0, 2, path, "red"),),
    )
    write_video(scene, tmp_path / "clip.mp4", 15)
    folder = tmp_path / "footage" / "coin"
    folder.mkdir(parents=True)
    clip = next(clip for clip in packages.CLIPS if clip.name == "coin")
    keep_frames(clip, tmp_path / "clip.mp4", folder)
    return scene


def red(frame: object) -> float:
    """How far right the red lies, 0 to 1."""
    values = np.asarray(frame, dtype=float)
    redness = np.clip(values[..., 0] - values[..., 1] - 40, 0, None).sum(axis=0)
    return float((redness * np.arange(len(redness))).sum() / redness.sum() / len(redness))


def test_footage_plays_and_turns_back_at_its_end(coin_clip: Scene) -> None:
    assert backgrounds.footage_clips() == backgrounds.footage_clips("test") == ["coin"]
    assert backgrounds.footage_clips("train") == []
    background = Background("footage", "coin", 8)
    there = [red(backgrounds.draw(background, t, 64, 48)) for t in (0.4, 0.8, 1.2, 1.6)]
    assert there in (sorted(there), sorted(there, reverse=True))
    assert abs(there[0] - there[-1]) > 0.2
    # Frame 9 is the last of ten: at 2.6 s frame 5 is shown again, on the way back.
    again = backgrounds.draw(background, 2.6, 64, 48).tobytes()
    assert again == backgrounds.draw(background, 1.0, 64, 48).tobytes()
    started = Background("footage", "coin", 8, offset=1.0)
    assert backgrounds.draw(started, 0, 64, 48).tobytes() == again


def test_footage_fills_frames_of_any_shape(coin_clip: Scene) -> None:
    for width, height in ((96, 96), (33, 64), (320, 40)):
        frame = backgrounds.draw(Background("footage", "coin", 2), 0, width, height)
        assert frame.size == (width, height)
        assert np.asarray(frame).min(axis=2).mean() > 60


def test_every_clip_belongs_to_one_split() -> None:
    names = [clip.name for clip in packages.CLIPS]
    assert len(names) == len(set(names))
    assert {clip.split for clip in packages.CLIPS} == set(backgrounds.SPLITS)
    people = {clip.split for clip in packages.CLIPS if clip.name.startswith("webcam")}
    assert len(people) == 1, "one person's clips in two splits"
    assert "car" in backgrounds.footage_shows("motorway")
    assert backgrounds.footage_shows("coin") == ()
