"""The turn-based pool as a whole: text samples, rules, splits, shares and determinism."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.world import backgrounds, languages, stills
from data_pipeline.world.pictures import picture_set
from data_pipeline.world.splits import SPLITS, Split, group
from data_pipeline.world.stills import Still, still
from data_pipeline.world.stills_wordings import QUESTIONS
from data_pipeline.world.words import plural
from joyvl_train.actions import CONTROL_TOKENS
from joyvl_train.content import right


def some(kind: str, count: int = 120, split: Split = "train") -> list[Still]:
    return [still(i, split, kind=kind) for i in range(count)]


def asked(sample: Still, *events: str) -> tuple[str, str]:
    """The event and the thing that the question is about, as its composition says."""
    for key in sample.compositions:
        event, thing, _ = key.split(" | ")
        if event in events:
            return event, thing
    raise AssertionError(f"{events} not in {sample.compositions}")


# Text.


def test_recall_follows_from_the_memory_lines() -> None:
    events = Counter()
    for sample in some("recall", 400):
        text = re.sub(r"\d+ to \d+ s: ", "", sample.context)
        said = re.findall(r"(\d+) s(?: assistant)?: ([^.]*) (came|appeared|left)\.", text)
        comings = [(int(s), what) for s, what, verb in said if verb != "left"]
        seconds = [int(s) for s, _, _ in said]
        assert seconds == sorted(seconds) and len(comings) >= 2
        named = {re.sub(r"^(An?|The|Some) ", "", what): s for s, what in comings}
        names = ["when", "at", "came_first", "came_last", "left_last", "before", "was_there"]
        names += ["was_colour", "how_many_came", "came_after", "came_times"]
        event, thing = asked(sample, *names)
        events[event] += 1
        by_thing = [s for what, s in named.items() if what.endswith(thing)]
        if event == "when":
            assert sample.answer == f"The {thing} came at {by_thing[0]} s."
        elif event == "at":
            second = int(re.findall(r"\d+", sample.question)[0])
            what = dict(comings)[second]
            assert sample.answer == f"At {second} s {what[0].lower()}{what[1:]} came."
        elif event == "came_first":
            assert sample.answer == f"{comings[0][1]}."
        elif event == "came_last":
            assert sample.answer == f"{comings[-1][1]}."
        elif event == "left_last":
            gone = [what for _, what, verb in said if verb == "left"]
            assert sample.answer.split(" ", 1)[1] == f"{gone[-1].split(' ', 1)[1]}."
        elif event == "before":
            before = max((s, what) for s, what in comings if s < by_thing[0])
            told = before[1][0].lower() + before[1][1:]
            assert sample.answer == f"Before the {thing} {told} came."
        elif event == "came_after":
            after = min((s, what) for s, what in comings if s > by_thing[0])
            told = after[1][0].lower() + after[1][1:]
            assert sample.answer == f"After the {thing} {told} came."
        elif event == "came_times":
            assert sample.answer == str(sum(what.endswith(f" {thing}") for _, what in comings))
        elif event == "was_there":
            assert sample.answer == ("Yes." if by_thing else "No.")
        elif event == "was_colour":
            colour, noun = thing.split(" ", 1)
            assert sample.answer == f"The {noun} was {colour}." and thing in named
        else:
            assert sample.answer == str(len(comings))
    assert len(events) == 11 and min(events.values()) > 10


def test_background_answers_stand_in_the_background_lines() -> None:
    for sample in some("background"):
        lines = dict(re.findall(r"^\[Background (\d)\] (.*)$", sample.context, re.MULTILINE))
        assert len(lines) == len(sample.context.splitlines())
        if sample.answer.startswith("It is "):
            assert f"is {sample.answer[6:]}" in next(iter(lines.values()))
        elif numbers := re.findall(r"\d", sample.question):
            assert sample.answer == lines[numbers[0]]
        else:
            assert [sample.answer] == list(lines.values())


def test_repeated_texts_stand_in_the_question() -> None:
    for sample in some("repeat"):
        assert sample.answer in sample.question and sample.context == ""


def test_numbers_go_on() -> None:
    for sample in some("digits", 300):
        numbers = [int(n) for n in re.findall(r"\d+", sample.question)]
        said = [int(n) for n in re.findall(r"\d+", sample.answer)]
        event, _ = asked(sample, "easy", "next_number", "count_up")
        if event == "easy":
            assert said == [sum(numbers)]
        elif event == "count_up":
            step = 1 if numbers[1] > numbers[0] else -1
            assert said == list(range(numbers[0], numbers[1] + step, step))
        else:
            row = [n for n in numbers if n > 0]
            steps = {b - a for a, b in itertools.pairwise([*row, *said])}
            assert len(steps) == 1 and (len(row) > 1 or steps == {1})


def test_follow_ups_are_told_before_they_are_asked() -> None:
    for sample in some("follow_up"):
        (fact,) = sample.rule.facts
        assert fact in sample.answer and fact in sample.context + sample.question


# All kinds.


@pytest.mark.parametrize("pictures", ["drawn", "photo"])
def test_every_kind_is_reached_in_every_split(pictures: str) -> None:
    for kind in stills.kinds(pictures):
        for split in SPLITS:
            sample = still(1, split, kind=kind, pictures=pictures)
            assert sample.kind == kind and sample.question and sample.answer
            assert len(sample.scenes) == len(sample.times)
    assert set(stills.kinds("drawn")) == set(stills.KINDS) == set(stills.MIX)
    assert "colour" not in stills.kinds("photo")
    mix = {"colour": 9.0, "name": 1.0}
    assert stills.at(0, "train", 0, mix=mix, pictures="photo").kind == "name"


def test_the_gold_answer_is_right_by_its_rule_and_others_are_not() -> None:
    for kind in stills.KINDS:
        samples = some(kind, 80)
        wrong = 0
        for sample, other in itertools.pairwise(samples):
            assert right(sample.rule, sample.answer, sample.answer) is True, sample
            wrong += right(sample.rule, sample.answer, other.answer) is not True
        if kind not in ("is_there", "compare", "state", "chat", "different"):
            assert wrong > 0.55 * len(samples), kind


def test_texts_hold_no_control_token_and_stay_on_a_line() -> None:
    for sample in stills.stills("train", 3, 600):
        for text in (sample.question, sample.answer):
            assert text == text.strip() and "\n" not in text
            assert "{" not in text and "  " not in text
        assert not any(
            token in sample.context + sample.question + sample.answer for token in CONTROL_TOKENS
        )


def test_each_event_has_eight_wordings_at_least() -> None:
    for event, wordings in QUESTIONS.items():
        assert len(set(wordings)) == len(wordings) >= 8, event


def test_synonyms_are_asked_for() -> None:
    asked_for = " ".join(sample.question for sample in some("where", 1500))
    synonyms = [name for p in picture_set("drawn") for name in p.names[1:]]
    assert sum(name in asked_for for name in synonyms) > 0.8 * len(synonyms)
    # "light" could mean the lamp or the traffic light.
    assert not re.search(r"the light\b", asked_for)


# Splits, shares and determinism.


def test_training_holds_no_composition_of_another_split() -> None:
    for sample in stills.stills("train", 0, 1500):
        assert all(group(key) == "train" for key in sample.compositions), sample


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_samples_have_a_composition_of_their_own(split: Split) -> None:
    trained = {key for s in stills.stills("train", 0, 1500) for key in s.compositions}
    for sample in stills.stills(split, 0, 400):
        groups = [group(key) for key in sample.compositions]
        assert split in groups and set(groups) <= {split, "train"}
        own = {k for k, g in zip(sample.compositions, groups, strict=True) if g == split}
        assert not own & trained


def test_compositions_name_what_is_shown_and_asked() -> None:
    for sample in stills.stills("train", 1, 400):
        scene = sample.scenes[0] if sample.scenes else None
        for track in scene.tracks if scene else ():
            name = scene.cuts[0].background.name
            assert f"before a background | {track.picture} | {name}" in sample.compositions
        questions = [key.split(" | ")[2] for key in sample.compositions]
        assert any(text in QUESTIONS[k.split(" | ")[0]]
                   for k, text in zip(sample.compositions, questions, strict=True)
                   if k.split(" | ")[0] in QUESTIONS)  # fmt: skip


def digest(samples: Sequence[Still]) -> str:
    found = hashlib.sha256()
    for sample in samples:
        found.update(repr((sample.question, sample.answer, sample.context)).encode())
        for frame in sample.frames(48):
            found.update(frame.tobytes())
    return found.hexdigest()


def test_another_process_makes_the_same_samples() -> None:
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('t', {str(Path(__file__))!r})\n"
        "t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)\n"
        "print(t.digest(list(t.stills.stills('test', 5, 24))))\n"
    )
    root = str(Path(stills.__file__).parents[2])
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest(list(stills.stills("test", 5, 24)))


def test_rows_can_be_entered_anywhere_and_seeds_differ() -> None:
    whole = list(stills.stills("train", 4, 30))
    assert whole[20:] == list(stills.stills("train", 4, 10, start=20))
    assert whole[7] == stills.at(7, "train", 4)
    assert whole != list(stills.stills("train", 5, 30))
    assert [s.question for s in whole] != [s.question for s in stills.stills("test", 4, 30)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**63), st.sampled_from(sorted(stills.KINDS)), st.sampled_from(SPLITS))
def test_any_seed_gives_a_sample(seed: int, kind: str, split: Split) -> None:
    sample = still(seed, split, kind=kind)
    assert sample == still(seed, split, kind=kind)
    assert right(sample.rule, sample.answer, sample.answer)


def test_the_mix_is_kept() -> None:
    mix = {"name": 3.0, "count": 1.0, "chat": 0.0}
    kinds = Counter(sample.kind for sample in stills.stills("train", 0, 800, mix=mix))
    assert set(kinds) == {"name", "count"}
    assert 0.68 < kinds["name"] / 800 < 0.82


def test_stages_grow_from_names_on_plain_to_everything() -> None:
    early, middle, late = (stills.pool(stage) for stage in ("early", "middle", "late"))
    assert set(early.mix) < set(middle.mix) < set(late.mix) == set(stills.KINDS)
    assert early.backgrounds == ("plain",)
    for sample in stills.stills("train", 0, 60, mix=early.mix, backgrounds=early.backgrounds):
        assert all(scene.cuts[0].background.kind == "plain" for scene in sample.scenes)
    with pytest.raises(ValueError, match="'end'"):
        stills.pool("end")


def test_frames_have_the_size_asked_for_and_show_the_thing() -> None:
    sample = still(2, "train", kind="happened")
    frames = sample.frames(64)
    assert len(frames) == len(sample.times) >= 2
    assert all(frame.size == (64, 64) and frame.mode == "RGB" for frame in frames)
    assert still(0, "train", kind="name").frames(96)[0].entropy() > 2
    assert any(s.frames(64) == () for s in some("chat", 20))


def test_textures_are_shared_by_neighbours_and_fresh_later() -> None:
    def seeds(start: int) -> set[int]:
        row = stills.stills("train", 0, 60, backgrounds=("texture",), start=start)
        return {s.scenes[0].cuts[0].background.seed for s in row if s.scenes}

    assert len(seeds(0)) <= 3 and not seeds(0) & seeds(5000)


def test_tokenizer_texts_hold_the_vocabulary() -> None:
    words = " ".join(stills.texts(0, count=50))
    for name in ("drawn", "photo"):
        assert all(p.name in words and p.plural in words for p in picture_set(name))
    assert all(text in words for _, text in languages.WORDS)
    assert words != " ".join(stills.texts(1, count=50))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "'dev'"),
        ({"kind": "sing"}, "'sing'"),
        ({"kind": "colour", "pictures": "photo"}, "'colour'"),
        ({"backgrounds": ()}, "none are given"),
        ({"backgrounds": ("sea",)}, "'sea'"),
        ({"pictures": "oil"}, "'oil'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        still(0, **{"split": "train", **arguments})


@pytest.mark.parametrize(
    "mix", [{"sing": 1.0}, {"name": -1.0}, {"name": float("nan")}, {}, {"name": 0.0}]
)
def test_bad_mixes_are_named(mix: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="mix"):
        next(stills.stills("train", 0, 1, mix=mix))


def test_missing_footage_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backgrounds, "footage_clips", lambda split=None: [])
    with pytest.raises(backgrounds.FootageError, match="footage"):
        still(0, "train", backgrounds=("footage",))


def test_plural_forms_are_asked_for() -> None:
    assert plural("knife") in " ".join(sample.question for sample in some("count", 600))


def test_both_sets_come_in_turn_and_each_as_it_is_alone() -> None:
    both = list(stills.stills("train", 3, 60, pictures="both", backgrounds=("plain",)))
    of_sets = {sample.scenes[0].pictures for sample in both if sample.scenes}
    assert of_sets == {"drawn", "photo"}
    alone = {
        name: list(stills.stills("train", 3, 60, pictures=name, backgrounds=("plain",)))
        for name in ("drawn", "photo")
    }
    for i, sample in enumerate(both):
        assert sample in (alone["drawn"][i], alone["photo"][i])
