import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.world import backgrounds, captions, pictures
from data_pipeline.world.backgrounds import Background
from data_pipeline.world.captions import Caption
from data_pipeline.world.scene import (
    Cut,
    Key,
    Scene,
    SceneError,
    Track,
    draw,
    frames,
    from_json,
    to_json,
)


def a_scene(seed: int = 5, **changes: object) -> Scene:
    scene = Scene(
        96,
        96,
        6.0,
        seed,
        (
            Cut(0, Background("texture", "bricks", seed, (0.1, 0.0))),
            Cut(3.0, Background("plain", "sky", seed)),
        ),
        (
            Track("car", 1.0, 4.0, (Key(1, -0.2, 0.5, 0.3), Key(4, 1.2, 0.5, 0.4)), "red"),
            Track("door", 0.0, 6.0, (Key(0, 0.8, 0.7, 0.4), Key(2, 0.8, 0.7, 0.4, 0, "open"))),
        ),
        (Caption("Ausgang", "de", 2, 5, "top"),),
        noise=0.02,
        drift=0.05,
    )
    return replace(scene, **changes)


def digest(scene: Scene) -> str:
    whole = hashlib.sha256()
    for frame in frames(scene, 2):
        whole.update(frame.tobytes())
    return whole.hexdigest()


ROOT = Path(__file__).resolve().parents[3]
PRINT_DIGEST = """
import hashlib, json, sys
from data_pipeline.world.scene import from_json, frames
whole = hashlib.sha256()
for frame in frames(from_json(json.load(sys.stdin)), 2):
    whole.update(frame.tobytes())
print(whole.hexdigest())
"""


def test_the_same_bytes_in_every_process() -> None:
    scene = a_scene()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT_DIGEST],
            input=json.dumps(to_json(scene)),
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == digest(scene)


def test_another_seed_gives_other_bytes() -> None:
    assert digest(a_scene(5)) != digest(a_scene(6))


def test_a_frame_does_not_depend_on_what_was_drawn_before() -> None:
    scene = a_scene()
    alone = draw(scene, 4.5).tobytes()
    in_order = [draw(scene, t / 2).tobytes() for t in range(12)]
    assert in_order[9] == alone
    assert draw(scene, 0.0).tobytes() == in_order[0]


numbers = st.floats(-3, 4, allow_nan=False)
keys = st.lists(st.integers(0, 100), min_size=1, max_size=4, unique=True).flatmap(
    lambda times: st.tuples(
        *(
            st.builds(
                Key,
                time=st.just(t / 4),
                x=numbers,
                y=numbers,
                size=st.floats(0.01, 1),
                angle=st.floats(-90, 90),
            )
            for t in sorted(times)
        )
    )
)
tracks = st.builds(
    lambda name, start, length, path, z, mirrored: Track(
        name, start, start + length, path, z=z, mirrored=mirrored
    ),
    st.sampled_from([p.name for p in pictures.DRAWN]),
    st.floats(0, 20),
    st.floats(0, 20),
    keys,
    st.integers(-3, 3),
    st.booleans(),
)
texts = st.builds(
    lambda text, language, start, place: Caption(text, language, start, start + 3, place),
    st.text(st.sampled_from("abc Ωж"), min_size=1).filter(str.strip),
    st.sampled_from(captions.LANGUAGES),
    st.floats(0, 20),
    st.sampled_from(("top", "center", "bottom")),
)
settings_of_scenes = st.builds(
    Scene,
    width=st.integers(16, 640),
    height=st.integers(16, 640),
    duration=st.floats(0.5, 600),
    seed=st.integers(0, 2**63 - 1),
    cuts=st.builds(
        lambda name, seed, motion: (Cut(0, Background("texture", name, seed, motion)),),
        st.sampled_from(backgrounds.TEXTURES),
        st.integers(0, 2**63 - 1),
        st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    ),
    tracks=st.lists(tracks, max_size=3).map(tuple),
    captions=st.lists(texts, max_size=2).map(tuple),
    noise=st.floats(0, 0.5),
    drift=st.floats(0, 0.5),
)


@given(settings_of_scenes)
@settings(max_examples=60, deadline=None)
def test_json_round_trip(scene: Scene) -> None:
    assert from_json(json.loads(json.dumps(to_json(scene)))) == scene


@given(track=tracks, at=st.floats(0, 40))
@settings(max_examples=100, deadline=None)
def test_a_track_is_there_in_its_time_only(track: Track, at: float) -> None:
    assert (track.at(at) is not None) == (track.start <= at < track.stop)


def test_seen_exactly_from_start_to_stop() -> None:
    plain = (Cut(0, Background("plain", "white", 1)),)
    shown = Track("car", 2.0, 4.0, (Key(0, 0.5, 0.5, 0.4),))
    empty = Scene(64, 64, 6.0, 1, plain)
    scene = replace(empty, tracks=(shown,))
    for time in (0.0, 1.0, 1.999, 2.0, 3.0, 3.999, 4.0, 5.0):
        differs = draw(scene, time).tobytes() != draw(empty, time).tobytes()
        assert differs == (2.0 <= time < 4.0), time


def test_keys_are_joined_by_straight_lines_and_states_hold() -> None:
    track = Track("door", 0, 10, (Key(2, 0.0, 0.2, 0.2), Key(4, 1.0, 0.4, 0.6, 90, "open")))
    assert track.at(0) == Key(2, 0.0, 0.2, 0.2)
    middle = track.at(3)
    assert middle is not None
    assert (middle.x, middle.y, middle.size, middle.angle) == pytest.approx((0.5, 0.3, 0.4, 45))
    assert middle.state == ""
    last = track.at(9)
    assert last is not None and last.state == "open" and last.x == 1.0


def test_nearer_pictures_cover_farther_ones() -> None:
    plain = (Cut(0, Background("plain", "white", 1)),)
    key = (Key(0, 0.5, 0.5, 0.8),)
    back, front = Track("star", 0, 1, key, "red", z=1), Track("heart", 0, 1, key, "blue", z=2)
    both = [Scene(64, 64, 1.0, 1, plain, order) for order in ((back, front), (front, back))]
    pixels = [draw(scene, 0).getpixel((32, 32)) for scene in both]
    assert pixels[0] == pixels[1]
    assert pixels[0][2] > 150 > pixels[0][0]


def test_the_same_scene_at_several_sizes() -> None:
    scene = replace(a_scene(), noise=0.0, captions=())
    small = draw(scene, 2.5)
    large = draw(scene, 2.5, 384, 384)
    assert large.size == (384, 384)
    back = np.asarray(large.resize(small.size), dtype=float)
    assert np.abs(back - np.asarray(small, dtype=float)).mean() < 8
    assert draw(scene, 2.5, 160, 64).size == (160, 64)


def test_cuts_change_the_background() -> None:
    scene = Scene(
        64, 64, 4.0, 1, (Cut(0, Background("plain", "night")), Cut(2, Background("plain", "white")))
    )
    assert np.asarray(draw(scene, 1.999)).mean() < 80 < np.asarray(draw(scene, 2.0)).mean()


def test_noise_makes_frames_of_a_still_scene_differ() -> None:
    still = Scene(64, 64, 9.0, 1, (Cut(0, Background("plain", "grey", 1)),))
    assert draw(still, 1).tobytes() == draw(still, 2).tobytes()
    noisy = replace(still, noise=0.02)
    assert draw(noisy, 1).tobytes() != draw(noisy, 2).tobytes()
    spread = (np.asarray(draw(noisy, 1), float) - np.asarray(draw(still, 1), float)).std() / 255
    assert 0.015 < spread < 0.025
    drifting = replace(still, drift=0.1)
    levels = [np.asarray(draw(drifting, t)).mean() for t in range(9)]
    assert max(levels) - min(levels) > 5


CAR = Track("car", 0, 1, (Key(0, 0, 0, 0.2),))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 4}, "width 4"),
        ({"height": 5000}, "height 5000"),
        ({"width": 64.0}, "width 64.0"),
        ({"duration": 0}, "duration"),
        ({"duration": float("nan")}, "duration nan"),
        ({"seed": -1}, "seed -1"),
        ({"seed": True}, "seed True"),
        ({"noise": 2.0}, "noise"),
        ({"pictures": "oil"}, "oil"),
        ({"cuts": ()}, "first cut"),
        ({"cuts": (Cut(1, Background("plain", "sky")),)}, "first cut"),
        ({"cuts": (Cut(0, Background("plain", "sky")),) * 2}, "does not grow"),
        ({"cuts": (Cut(0, Background("plain", "tartan")),)}, "tartan"),
        ({"cuts": (Cut(0, Background("texture", "bricks", -1)),)}, "seed -1"),
        ({"tracks": (replace(CAR, picture="unicorn"),)}, "unicorn"),
        ({"tracks": (replace(CAR, colour="mauve"),)}, "mauve"),
        ({"tracks": (replace(CAR, picture="dog", colour="red"),)}, "red"),
        ({"tracks": (replace(CAR, stop=-1),)}, "stop"),
        ({"tracks": (replace(CAR, keys=()),)}, "0 keys"),
        ({"tracks": (replace(CAR, keys=(Key(0, 0, 0, 9),)),)}, "size"),
        ({"tracks": (replace(CAR, keys=(Key(0, 0, float("inf"), 1),)),)}, "y inf"),
        ({"tracks": (replace(CAR, keys=(Key(0, 0, 0, 1, 0, "open"),)),)}, "open"),
        ({"tracks": (replace(CAR, keys=(Key(1, 0, 0, 1), Key(1, 0, 0, 1))),)}, "does not grow"),
        ({"tracks": (CAR,) * 5000}, "5000 tracks"),
        ({"captions": (Caption(" ", "en", 0, 1),)}, "characters"),
        ({"captions": (Caption("hi", "tlh", 0, 1),)}, "tlh"),
    ],
)
def test_what_is_out_of_bounds_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        a_scene(**changes)


def test_times_outside_the_scene_are_refused() -> None:
    for time in (-0.1, 6.0, float("nan")):
        with pytest.raises(SceneError, match="time"):
            draw(a_scene(), time)


@pytest.mark.parametrize("data", [{}, {"cuts": 3}, {"cuts": [], "wings": 2}, {"cuts": [{}]}])
def test_what_is_no_scene_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(SceneError):
        from_json(data)
