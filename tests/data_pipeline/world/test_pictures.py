import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.world import photos, pictures
from data_pipeline.world.drawing import PAINTERS


def on_grey(name: str, colour: str = "", state: str = "") -> NDArray[np.float64]:
    image = Image.new("RGB", (32, 32), (128, 128, 128))
    sprite = pictures.sprite(name, 32, colour, state)
    image.paste(sprite, ((32 - sprite.width) // 2, (32 - sprite.height) // 2), sprite)
    return np.asarray(image, dtype=float)


def test_every_picture_can_be_told_from_every_other_at_32_pixels() -> None:
    drawn = {p.name: on_grey(p.name) for p in pictures.DRAWN}
    for (one, a), (other, b) in itertools.combinations(drawn.items(), 2):
        assert np.abs(a - b).mean() > 15, (one, other)


def test_states_can_be_told_apart_at_32_pixels() -> None:
    for picture in pictures.DRAWN:
        for one, other in itertools.combinations(picture.states, 2):
            distance = np.abs(
                on_grey(picture.name, state=one) - on_grey(picture.name, state=other)
            ).mean()
            assert distance > 6, (picture.name, one, other)


def test_colours_can_be_told_apart_at_32_pixels() -> None:
    for picture in pictures.DRAWN:
        for one, other in itertools.combinations(pictures.COLOURS if picture.colours else (), 2):
            distance = np.abs(on_grey(picture.name, one) - on_grey(picture.name, other)).mean()
            assert distance > 4, (picture.name, one, other)


def test_the_named_pictures_are_those_that_can_be_painted() -> None:
    names = [p.name for p in pictures.DRAWN]
    assert len(names) == len(set(names)) >= 40
    assert set(names) == set(PAINTERS)


@pytest.mark.parametrize("which", pictures.SETS)
def test_names_are_clear(which: str) -> None:
    for picture in pictures.picture_set(which):
        assert picture.names[0] == picture.name
        assert picture.article in ("a", "an", "the", "some")
        assert picture.plural and picture.category
    every = [name for picture in pictures.picture_set(which) for name in picture.names]
    assert len(every) == len(set(every)), "a synonym that names two pictures"


def test_photos_have_a_file_for_each_state() -> None:
    assert 40 <= len(photos.PHOTOS) <= 90
    for photo in photos.PHOTOS:
        assert len(photo.files) == max(1, len(photo.states))


@pytest.mark.parametrize("size", [1, 7, 32, 130, 400])
def test_the_larger_side_is_the_size(size: int) -> None:
    for name in ("knife", "person", "ball"):
        assert max(pictures.sprite(name, size).size) == size


def test_a_change_of_state_keeps_the_frame() -> None:
    for picture in pictures.DRAWN:
        sizes = {pictures.sprite(picture.name, 40, state=state).size for state in picture.states}
        assert len(sizes) <= 1, picture.name


def test_mirrored_and_turned() -> None:
    right = pictures.sprite("car", 32, "red")
    left = pictures.sprite("car", 32, "red", mirrored=True)
    assert np.array_equal(np.asarray(left)[:, ::-1], np.asarray(right))
    upright = pictures.sprite("car", 32, "red", angle=90)
    assert upright.height > upright.width


def test_edges_are_soft_and_outside_is_clear() -> None:
    alpha = np.asarray(pictures.sprite("ball", 32, "red").getchannel("A"))
    assert alpha[0, 0] == 0 and alpha[16, 16] == 255
    assert ((alpha > 0) & (alpha < 255)).any()


def test_what_does_not_exist_is_refused() -> None:
    for wrong in (
        lambda: pictures.sprite("unicorn", 32),
        lambda: pictures.sprite("car", 32, "mauve"),
        lambda: pictures.sprite("dog", 32, "red"),
        lambda: pictures.sprite("door", 32, state="ajar"),
        lambda: pictures.sprite("door", 0),
        lambda: pictures.picture("car", "oil"),
        lambda: pictures.picture_set("oil"),
    ):
        with pytest.raises(pictures.PictureError):
            wrong()


def test_what_is_written_on_a_photo_is_never_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    half = Image.new("RGBA", (64, 64), "red")
    half.paste("blue", (32, 0, 64, 64))
    monkeypatch.setattr(pictures, "_master", lambda *_: half)
    monkeypatch.setattr(pictures, "_large_master", lambda *_: half)
    for name, right in (("stop sign", (0, 0, 255)), ("tiger", (255, 0, 0))):
        assert {p.names[0] for p in photos.PHOTOS} >= photos.WRITTEN
        shown = pictures.sprite(name, 64 * 3, mirrored=True, picture_set="photo")
        assert shown.getpixel((180, 90))[:3] == right
    assert {"stop sign", "clock"} <= photos.WRITTEN


def test_photos_that_were_not_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path))
    assert not photos.available()
    with pytest.raises(photos.PhotoError, match="data_pipeline.assets photo"):
        photos.load("tiger")


def test_a_photo_is_cut_to_what_is_visible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path))
    stamp = Image.new("RGBA", (60, 50), (0, 0, 0, 0))
    stamp.paste((200, 100, 0, 255), (10, 20, 40, 30))
    photo = next(p for p in photos.PHOTOS if p.names[0] == "saw")
    path = tmp_path / "photo" / f"{photo.files[0]}.png"
    path.parent.mkdir(parents=True)
    stamp.save(path)
    assert photos.load("saw").size == (30, 10)
