import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from data_pipeline.world import scene as world_scene
from data_pipeline.world.pictures import SETS
from data_pipeline.world.splits import SPLITS, group
from data_pipeline.world.stories import backdrop
from data_pipeline.world.streams import (
    FAMILIES,
    HELD_OUT,
    STORIES,
    WorldFrames,
    kinds,
    stream,
    streams,
    texts,
)
from joyvl_train.timeline import Silence, actions, from_json, to_json

ROOT = Path(__file__).resolve().parents[3]
FINGERPRINT = """
import hashlib, json
from data_pipeline.world.streams import FAMILIES, stream
from joyvl_train.timeline import to_json
for family in FAMILIES:
    print(hashlib.sha256(json.dumps(to_json(stream(family, 5, "train"))).encode()).hexdigest())
"""


def test_equal_arguments_give_equal_streams_in_every_process() -> None:
    here = [
        hashlib.sha256(json.dumps(to_json(stream(f, 5, "train"))).encode()).hexdigest()
        for f in FAMILIES
    ]
    for hash_seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.split() == here


def test_seed_split_and_length_all_matter() -> None:
    one = stream("alerting", 1, "train")
    assert one == stream("alerting", 1, "train")
    assert one != stream("alerting", 2, "train")
    assert one.events != stream("alerting", 1, "validation").events
    assert stream("alerting", 1, "train", seconds=40).clip.seconds == 40


def test_a_stream_of_hundreds_of_seconds() -> None:
    for family in FAMILIES:
        long = stream(family, 3, "train", seconds=320)
        assert long.clip.seconds == 320
        assert max(e.second for e in long.events) > 200 or family == "procedure"


@pytest.mark.parametrize("pictures", ["drawn", "photo"])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("family", STORIES)
def test_each_kind_can_be_told(family: str, split: str, pictures: str) -> None:
    if family in HELD_OUT and split != "test":
        with pytest.raises(ValueError, match="held out of the split"):
            stream(family, 0, split)
        return
    for kind in kinds(family, pictures):
        for seed, seconds in itertools.product(range(2), (12, None, 60)):
            timeline = stream(family, seed, split, kind=kind, pictures=pictures, seconds=seconds)
            assert timeline.family == family and timeline.meta["kind"] == kind
            assert len(actions(timeline)) == timeline.clip.seconds
            world_scene.from_json(timeline.clip.scene)


@pytest.mark.parametrize("family", STORIES)
def test_all_kinds_are_drawn(family: str) -> None:
    found = {stream(family, seed, "test").meta["kind"] for seed in range(120)}
    assert found == set(kinds(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_held_out_compositions_never_occur_in_training(family: str) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        for seed in range(150):
            found = set(stream(family, seed, split).meta["compositions"])
            owners = {group(key) for key in found}
            assert owners <= {split, "train"}
            assert split in owners, (family, split, seed)
            seen[split] |= found
    held_out = {key for key in seen["test"] | seen["validation"] if group(key) != "train"}
    assert held_out and not held_out & seen["train"]


def test_every_part_of_a_held_out_composition_occurs_in_training() -> None:
    parts = Counter[str]()
    for timeline in streams("train", 1, 2500, mix=("alerting", "commentary", "qa")):
        for key in timeline.meta["compositions"]:
            parts.update(set(key.split(" | ")))
    missing = Counter[str]()
    total = 0
    for timeline in streams("test", 1, 300, mix=("alerting", "commentary", "qa")):
        for key in timeline.meta["compositions"]:
            if " | red" in key or timeline.meta["kind"] == "colour":
                continue  # a colour and a thing together are hundreds; each is common alone
            total += 1
            missing.update(p for p in key.split(" | ") if p not in parts)
    assert total > 500 and sum(missing.values()) < 0.01 * total, missing


@pytest.mark.parametrize("family", STORIES)
def test_rates(family: str) -> None:
    seconds = onsets = silent = 0
    for seed in range(200):
        timeline = stream(family, seed, "test")
        done = actions(timeline)
        seconds += len(done)
        silent += sum(isinstance(a, Silence) for a in done)
        onsets += len(timeline.of("assistant"))
    assert 4 <= 60 * onsets / seconds <= 22
    assert 0.6 <= silent / seconds <= 0.95


def test_some_instructions_are_for_what_never_comes() -> None:
    quiet = sum(not stream("alerting", seed, "train").of("assistant") for seed in range(600))
    assert 0.08 <= quiet / 600 <= 0.2


def test_responses_do_not_cluster_in_one_second_of_the_clip() -> None:
    """No second of the stream is so likely an onset that time alone would tell."""
    first = Counter(
        timeline.of("assistant")[0].second
        for seed in range(600)
        if (timeline := stream("alerting", seed, "train")).of("assistant")
    )
    assert max(first.values()) / sum(first.values()) < 0.25


def test_timelines_survive_json() -> None:
    for family in FAMILIES:
        timeline = stream(family, 1, "train")
        again = from_json(json.loads(json.dumps(to_json(timeline))))
        assert again.events == timeline.events and again.opening == timeline.opening
        assert world_scene.from_json(again.clip.scene) == world_scene.from_json(timeline.clip.scene)


def test_frames() -> None:
    timeline = stream("alerting", 1, "train", seconds=12, frames_per_second=2.0)
    frames = WorldFrames(timeline, 32)
    assert frames.seconds == 12
    scene = world_scene.from_json(timeline.clip.scene)
    first, second = frames.frames(11)
    assert first.size == (32, 32)
    assert first.tobytes() == world_scene.draw(scene, 11.499, 32, 32).tobytes()
    assert second.tobytes() == world_scene.draw(scene, 11.999, 32, 32).tobytes()
    assert WorldFrames(timeline, (48, 32)).frames(0)[0].size == (48, 32)
    with pytest.raises(ValueError, match="second 12 of a clip of 12"):
        frames.frames(12)


def test_a_frame_shows_its_own_second_whatever_comes_later() -> None:
    """The frames of second t are drawn from moments before its end."""
    timeline = stream("commentary", 2, "train", kind="describe", seconds=20)
    scene = world_scene.from_json(timeline.clip.scene)
    frames = WorldFrames(timeline, 32)
    for second in range(20):
        past = [t for t in scene.tracks if t.start < second + 1]
        cut = world_scene.Scene(
            scene.width, scene.height, scene.duration, scene.seed, scene.cuts, tuple(past),
            scene.captions, scene.pictures, scene.noise, scene.drift,
        )  # fmt: skip
        (frame,) = frames.frames(second)
        assert frame.tobytes() == world_scene.draw(cut, second + 1 - 1e-3, 32, 32).tobytes()


def test_a_longer_call_begins_as_a_shorter_one() -> None:
    short = list(streams("train", 4, 12))
    assert short == list(streams("train", 4, 20))[:12]
    assert not {t.clip.id for t in short} & {t.clip.id for t in streams("train", 5, 12)}


def test_both_sets_of_pictures_come_in_turn() -> None:
    both = list(streams("test", 3, 8, ["qa", "recall"], "both"))
    told = [(t.family, t.clip.scene["pictures"]) for t in both if t.clip.scene]
    assert told[:2] == [("qa", "drawn"), ("recall", "drawn")]
    assert told[2:4] == [("qa", "photo"), ("recall", "photo")] and told[4:] == told[:4]
    drawn, photo = (list(streams("test", 3, 8, ["qa", "recall"], name)) for name in SETS)
    assert both == [*drawn[:2], *photo[2:4], *drawn[4:6], *photo[6:]]


def test_the_mix_is_kept() -> None:
    found = Counter(t.family for t in streams("train", 1, 40, mix={"alerting": 3, "qa": 1}))
    assert found == {"alerting": 30, "qa": 10}
    assert {t.family for t in streams("train", 1, len(FAMILIES))} == set(FAMILIES)


def test_backgrounds_are_those_asked_for() -> None:
    for wanted in ("plain", "texture"):
        found = {t.meta["background"] for t in streams("train", 1, 10, backgrounds=(wanted,))}
        assert found == {wanted}
    mixed = Counter(
        t.meta["background"]
        for t in streams("train", 1, 200, backgrounds={"plain": 1, "texture": 3})
    )
    assert 0.6 < mixed["texture"] / 200 < 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "juggling"}, "'juggling' is none of alerting"),
        ({"split": "dev"}, "'dev' is none of"),
        ({"kind": "appeared"}, "'appeared' is none of appear"),
        ({"kind": "colour", "pictures": "photo"}, "'colour' is none of"),
        ({"seconds": 3}, "seconds 3"),
        ({"frames_per_second": 0.5}, "frames_per_second 0.5"),
        ({"backgrounds": ("plane",)}, "'plane'"),
        ({"backgrounds": {"plain": 0.0}}, "none has a weight"),
        ({"pictures": "oil"}, "'oil' is none of"),
    ],
)
def test_what_does_not_exist_is_named(arguments: dict[str, object], message: str) -> None:
    given = {"family": "alerting", "seed": 0, "split": "train"} | arguments
    with pytest.raises(ValueError, match=message):
        stream(**given)  # type: ignore[arg-type]


def test_footage_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="no footage of the split 'train'"):
        stream("alerting", 0, "train", backgrounds=("plain", "footage"))


def test_stories_before_footage_leave_out_what_the_footage_shows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "footage" / "motorway"
    folder.mkdir(parents=True)
    clip = {"split": "train", "frames": 2, "rate": 10}
    (folder / "clip.json").write_text(json.dumps(clip))
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path))
    behind = Counter[str]()
    for timeline in streams("train", 1, 150, backgrounds={"footage": 20, "plain": 1}):
        behind[timeline.meta["background"]] += 1
        if timeline.meta["background"] == "footage":
            shown = {track["picture"] for track in timeline.clip.scene["tracks"]}
            assert not shown & set(backdrop.SHOWS["motorway"])
            # Of all that is to be seen nobody speaks: the footage shows things of its own.
            assert not STORIES[timeline.family][timeline.meta["kind"]].all_seen
            asked = {key.split(" | ")[0] for key in timeline.meta["compositions"]}
            assert not asked & {"now", "next", "before", "came_first", "left_last", "see"}
    assert behind["footage"] > 80
    # Where there is footage alone, the kinds that can be told before it are drawn.
    found = {stream("qa", i, "train", backgrounds=("footage",)).meta["kind"] for i in range(20)}
    assert found == {"present", "mixed"}
    with pytest.raises(ValueError, match="commentary/.* tells of all that is seen"):
        stream("commentary", 0, "train", backgrounds=("footage",))


def test_the_story_is_the_same_before_plain_and_texture() -> None:
    one, other = (stream("qa", 3, "train", backgrounds=(kind,)) for kind in ("plain", "texture"))
    assert one.events == other.events and one.clip.scene != other.clip.scene


def test_texts_for_a_tokenizer() -> None:
    found = list(itertools.islice(texts(1), 6000))
    assert found == list(itertools.islice(texts(1), 6000))
    for needed in ("42", "red", "a dog, the dog, dogs", "gato: cat"):
        assert needed in found
    assert any("appeared." in t for t in found) and any(t.startswith("Earlier:") for t in found)
