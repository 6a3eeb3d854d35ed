"""Near-same pictures give near-same bits, others don't."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from data_pipeline.clip_hash import PICTURES, WORDS, clip_hash, near
from tests.data_pipeline.made_corpus import Texture


class Shown:
    """Pictures by the second."""

    def __init__(self, pictures: list[Image.Image | None]) -> None:
        self._pictures = pictures
        self.seconds = len(pictures)

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        picture = self._pictures[second]
        return () if picture is None else (picture,)


def texture(number: int, seconds: int = 16) -> list[Image.Image]:
    video = Texture(f"videos/{number}.mp4", seconds)
    return [video.frames(t)[0].resize((192, 128), Image.Resampling.BICUBIC) for t in range(seconds)]


def alike(one: list, other: list) -> bool:
    hashes = [clip_hash(Shown(pictures), 0, len(pictures))[None] for pictures in (one, other)]
    assert bool(near(*hashes)[0]) == bool(near(*reversed(hashes))[0])
    return bool(near(*hashes)[0])


def jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=20)
    return Image.open(file)


def marked(picture: Image.Image) -> Image.Image:
    picture = picture.copy()
    ImageDraw.Draw(picture).rectangle((176, 4, 186, 8), fill="white")
    return picture


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": jpeg,
    "half": lambda picture: picture.resize((96, 64)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(1.3),
    "marked": marked,
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_copy_is_near(change):
    for number in range(5):
        pictures = texture(number)
        assert alike(pictures, [CHANGES[change](picture) for picture in pictures])


def test_another_video_is_not():
    hashes = np.stack([clip_hash(Shown(texture(n)), 0, 16) for n in range(30)])
    for n, one in enumerate(hashes):
        others = np.delete(hashes, n, axis=0)
        assert not near(np.broadcast_to(one, others.shape), others).any()


def scene(movers: list[tuple[int, int] | None]) -> list[Image.Image]:
    """One fixed camera, and where in its pictures something bright is."""
    pictures = []
    for place in movers:
        picture = texture(3, 1)[0]
        if place is not None:
            ImageDraw.Draw(picture).ellipse((*place, place[0] + 50, place[1] + 50), fill="white")
        pictures.append(picture)
    return pictures


def test_another_hour_of_a_fixed_camera_is_not():
    left = [(10 * t, 20) for t in range(16)]
    right = [(150 - 12 * t, 70) for t in range(16)]
    assert alike(scene(left), [jpeg(picture) for picture in scene(left)])
    assert not alike(scene(left), scene(right))
    assert not alike(scene(left), scene([None] * 16))
    assert alike(scene([None] * 16), [jpeg(picture) for picture in scene([None] * 16)])


def test_flat_pictures_say_nothing():
    black = [Image.new("RGB", (64, 64)) for _ in range(16)]
    assert not clip_hash(Shown(black), 0, 16).any()
    assert not alike(black, black)
    assert not alike([*black[:10], *texture(1)[10:]], [*black[:10], *texture(1)[10:]])


def test_the_hash_is_of_its_stretch_alone():
    one, other = texture(1), texture(2)
    spliced = Shown([*one[:8], *other[8:]])
    assert (clip_hash(spliced, 0, 8) == clip_hash(Shown(one), 0, 8)).all()
    assert (clip_hash(spliced, 8, 16) == clip_hash(Shown(other), 8, 16)).all()
    assert (clip_hash(spliced, 0, 16) != clip_hash(Shown(one), 0, 16)).any()


def test_short_clips_and_seconds_without_a_picture():
    one = texture(1, 1)
    words = clip_hash(Shown(one), 0, 1)
    assert words.shape == (WORDS,) and words.dtype == np.uint64
    assert len(set(words[:PICTURES])) == 1 and not words[PICTURES:].any()
    assert alike(one, [jpeg(one[0])])
    gaps = [None, *texture(1, 2), None]
    assert clip_hash(Shown(gaps), 0, 4)[0] == 0
    with pytest.raises(ValueError, match=r"seconds \[3, 9\) of a clip of 4"):
        clip_hash(Shown(gaps), 3, 9)
