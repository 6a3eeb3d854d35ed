"""Labels against the scene's geometry, read second by second by an independent watcher."""

from __future__ import annotations

import re

import pytest
from PIL import Image, ImageChops

from data_pipeline.world import scene as world_scene
from data_pipeline.world.pictures import picture
from data_pipeline.world.streams import FAMILIES, HELD_OUT, STORIES, kinds, stream
from joyvl_train import content
from joyvl_train.timeline import actions

from .watching import inside, present, said, subject, told, watch

CASES = [(f, k) for f in STORIES for k in kinds(f)]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_nothing_is_half_there_at_the_end_of_a_second(family: str, kind: str) -> None:
    for timeline, scene in told(family, kind, 15):
        for second in range(timeline.clip.seconds or 0):
            for track in scene.tracks:
                part = inside(track, second + 1 - 1e-3)
                assert part >= 0.6 or part <= 0.16, (timeline.clip.id, second, track.picture, part)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_things_are_large_and_none_covers_another(family: str, kind: str) -> None:
    for timeline, scene in told(family, kind, 8):
        for second in range(timeline.clip.seconds or 0):
            keys = [k for t in scene.tracks if (k := t.at(second + 1 - 1e-3)) is not None]
            assert all(0.28 <= k.size <= 0.5 for k in keys)
            for i, one in enumerate(keys):
                for other in keys[:i]:
                    reach = (one.size + other.size) / 2
                    over_x, over_y = reach - abs(one.x - other.x), reach - abs(one.y - other.y)
                    assert min(over_x, over_y) < 0.08, (timeline.clip.id, second)


@pytest.mark.parametrize("kind", ["appear", "first", "never", "hold", "hold_once", "colour"])
def test_alerts_are_what_a_watcher_sees(kind: str) -> None:
    for timeline, scene in told("alerting", kind, 30):
        colour, name = "", subject(timeline)
        if kind == "colour":
            colour, name = name.split(" ", 1)
        expected = [
            second
            for second, happened in watch(scene)
            for _, track, what in happened
            if what == "came" and track.picture == name
            if not colour or track.colour == colour
        ]
        if kind == "first":
            expected = expected[:1]
        assert list(said(timeline)) == expected, timeline.clip.id
        assert bool(expected) == (kind != "never")


def test_either_of_two_things_is_told_of() -> None:
    for timeline, scene in told("alerting", "either", 30):
        names = {key.split(" | ")[1] for key in timeline.meta["compositions"]}
        came = [s for s, h in watch(scene) for _, t, w in h if w == "came" and t.picture in names]
        assert list(said(timeline)) == came


def test_nothing_is_told_after_a_stop_and_nothing_of_a_thing_not_yet_asked_for() -> None:
    for timeline, scene in told("alerting", "stop", 20):
        end = next(s for s, text in said(timeline).items() if text == "Okay.")
        came = [
            s
            for s, h in watch(scene)
            for _, t, w in h
            if w == "came" and t.picture == subject(timeline)
        ]
        assert list(said(timeline)) == [*(s for s in came if s < end), end]
        assert any(s > end for s in came)
    for timeline, _ in told("alerting", "later", 20):
        queries = {e.id: e.second for e in timeline.of("user")}
        for event in timeline.of("assistant"):
            assert queries[event.answers or ""] < event.second


def test_the_held_seconds_are_those_in_which_the_thing_is_there() -> None:
    for kind, repeat in (("hold", True), ("hold_once", False), ("appear", False)):
        for timeline, scene in told("alerting", kind, 20):
            held = {t for e in timeline.of("assistant") for t in e.held_seconds}
            there = {
                t
                for t in range(timeline.clip.seconds or 0)
                if subject(timeline) in present(scene, t)
            }
            assert held == there
            spoken = {t for t, a in enumerate(actions(timeline)) if type(a).__name__ == "Response"}
            assert (spoken == there) if repeat else len(spoken) == len(timeline.of("assistant"))


def test_departures_are_what_a_watcher_sees() -> None:
    for timeline, scene in told("alerting", "leave", 30):
        gone = [
            s
            for s, h in watch(scene)
            for _, t, w in h
            if t.picture == subject(timeline) and w == "left"
        ]
        assert [s for s in gone if s > 2] == list(said(timeline))


def test_state_alerts_are_what_a_watcher_sees() -> None:
    for timeline, scene in told("alerting", "state", 30):
        name, state = subject(timeline).split(": ")
        changes = [s for s, h in watch(scene) for _, t, w in h if t.picture == name and w == state]
        assert changes == list(said(timeline))
        assert set(said(timeline).values()) == {f"The {name} is {state}."}


def test_the_commentary_tells_each_thing_that_happens() -> None:
    for timeline, scene in told("commentary", "describe", 30):
        expected = {}
        for second, happened in watch(scene):
            for _, track, what in happened:
                thing = picture(track.picture)
                if what == "came":
                    text = f"{thing.article} {thing.name} appeared."
                    expected[second] = text[0].upper() + text[1:]
                elif what == "left":
                    expected[second] = f"The {thing.name} left."
                elif "wing" not in what:
                    expected[second] = f"The {thing.name} is {what}."
        assert said(timeline) == expected


def test_counts_go_up_with_each_arrival() -> None:
    for timeline, scene in told("counting", "arrivals", 30):
        came = [
            s
            for s, h in watch(scene)
            for _, t, w in h
            if t.picture == subject(timeline) and w == "came"
        ]
        assert said(timeline) == {s: str(i) for i, s in enumerate(came, 1)}


def test_a_bounce_shows_in_the_last_frame_of_its_second() -> None:
    for timeline, scene in told("counting", "bounces", 20):
        (track,) = scene.tracks
        heights = [track.at(t + 1 - 1e-3).y for t in range(timeline.clip.seconds or 0)]
        low = [t for t, y in enumerate(heights) if y > 0.6]
        assert low == list(said(timeline))
        assert all(y < 0.4 for t, y in enumerate(heights) if t not in low)


def test_lengths_of_stays() -> None:
    for timeline, scene in told("counting", "lasted", 20):
        came: dict[int, int] = {}
        expected = {}
        for second, happened in watch(scene):
            for i, track, what in happened:
                if track.picture == subject(timeline) and what == "came":
                    came[i] = second
                elif track.picture == subject(timeline) and what == "left":
                    expected[second] = f"{second - came[i]} seconds"
        assert said(timeline) == expected


@pytest.mark.parametrize("kind", ["countdown", "withhold"])
def test_waits_are_kept(kind: str) -> None:
    for timeline, _ in told("counting", kind, 20):
        queries = {e.id: e for e in timeline.of("user")}
        for event in timeline.of("assistant"):
            query = queries[event.answers or ""]
            wait = int("".join(c for c in query.text if c.isdigit()))
            assert event.second == query.second + wait
            assert (event.early, event.late) == (1, 1)


@pytest.mark.parametrize("kind", ["every", "ladder"])
def test_intervals_are_kept(kind: str) -> None:
    for timeline, _ in told("counting", kind, 20):
        (query,) = timeline.of("user")
        step = int(subject(timeline))
        for n, event in enumerate(timeline.of("assistant"), 1):
            assert event.second == query.second + n * step
            assert event.text == (str(n) if kind == "ladder" else f"{n * step} seconds")
        assert query.second + (n + 1) * step >= (timeline.clip.seconds or 0)


@pytest.mark.parametrize(("family", "kind"), [("qa", "present"), ("counting", "withhold")])
def test_what_is_there_now(family: str, kind: str) -> None:
    asked = 0
    for timeline, scene in told(family, kind, 30):
        for event in timeline.of("assistant"):
            if event.text.rstrip(".") in ("Yes", "No") or not event.text.startswith(
                ("A", "S", "T", "N")
            ):
                continue
            here = [picture(n) for n in present(scene, event.second)]
            if event.text == "Nothing.":
                assert not here
            elif len(event.text.split()) > 1:
                asked += 1
                assert all(p.name in event.text for p in here), (timeline.clip.id, event)
                assert event.text.count(",") + event.text.count(" and ") == len(here) - 1
    assert asked > 20


def test_next_is_the_first_thing_to_come_after_the_question() -> None:
    for timeline, scene in told("qa", "forward", 30):
        queries = {e.id: e for e in timeline.of("user")}
        came = {s: t.picture for s, h in watch(scene) for _, t, w in h if w == "came"}
        for event in timeline.of("assistant"):
            due = min(s for s in came if s > queries[event.answers or ""].second)
            assert event.second == due and came[due] in event.text


def test_words_are_told_when_they_show_and_repeats_are_not() -> None:
    repeats = 0
    for kind in ("words", "subtitles", "romanized"):
        for timeline, scene in told("translation", kind, 20):
            shown: list[str] = []
            expected = []
            for caption in sorted(scene.captions, key=lambda c: c.start):
                text = caption.text.split("\n")[0]
                if kind == "romanized" and text.isascii():
                    continue
                if not shown or shown[-1] != text:
                    expected.append(int(caption.start))
                else:
                    repeats += 1
                shown.append(text)
                assert caption.stop >= int(caption.start) + 1
            assert list(said(timeline)) == expected
    assert repeats > 10


def test_the_opening_memory_holds_the_answer() -> None:
    for timeline, _ in told("recall", "opening", 40):
        assert timeline.opening and timeline.of("assistant")
        memory = timeline.opening.lower()
        for event in timeline.of("assistant"):
            said = event.text.rstrip(".").lower()
            if said.isdigit():
                continue
            if found := re.fullmatch(r"the (.+) came at (\d+) s", said):
                line = rf"\b{found[2]} s(?: assistant)?: [a-z ]*\b{found[1]} (?:came|appeared)"
            elif found := re.fullmatch(r"the (.+) was (\w+)", said):
                line = rf"\b{found[2]} {found[1]} "
            else:
                found = re.fullmatch(r"(before|after) the (.+?) ((?:an?|some) .+) came", said)
                assert found, said
                lines = re.findall(r"\d+ s(?: assistant)?: ([a-z ]+) (?:came|appeared)", memory)
                (at,) = (i for i, what in enumerate(lines) if what.endswith(f" {found[2]}"))
                there = lines[at - 1 if found[1] == "before" else at + 1]
                assert there.split()[-1] == found[3].split()[-1], (event, memory)
                continue
            assert re.search(line, memory), (event, memory)


def test_a_standing_instruction_needs_no_question() -> None:
    long = 0
    for timeline, _ in told("recall", "standing", 40):
        assert "Instructions:" in timeline.opening and not timeline.of("user")
        assert timeline.of("assistant")
        before, _, order = timeline.opening.rpartition("Instructions:\n")
        name = timeline.meta["compositions"][0].split(" | ")[1]
        # What memory saw of others since is none of what is waited for.
        assert not re.search(rf"\b{name} (appeared|left)", before)
        second = int(order.split(" s: ")[0])
        if before:
            assert second < timeline.meta["before"]
            long += timeline.meta["before"] > 600
    assert long > 3


def test_steps_follow_each_other() -> None:
    for kind in ("put", "switch"):
        for timeline, _ in told("procedure", kind, 20):
            order = timeline.of("user")[0].text.lower()
            places = []
            for event in timeline.of("assistant"):
                if event.text != "All done.":
                    places.append(order.index(event.text.rstrip(".").lower()))
            if kind == "put":
                assert places == sorted(places)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_every_gold_text_is_right_by_its_own_rule(family: str, kind: str) -> None:
    for timeline, _ in told(family, kind, 15):
        for event in timeline.of("assistant"):
            assert event.rule is not None
            assert content.right(event.rule, event.text, event.text) is True, event


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_windows_of_responses_never_meet(family: str, kind: str) -> None:
    for timeline, _ in told(family, kind, 25):
        last = -1
        for event in timeline.of("assistant"):
            assert event.second - (event.early or 0) > last, timeline.clip.id
            last = event.second + (1 if event.late is None else event.late)
            if event.repeat:
                last = max(last, event.held_seconds[-1])


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_responses_follow_from_the_past(family: str, kind: str) -> None:
    """What a response answers was said before it, and nothing it tells of lies after its second."""
    for timeline, _ in told(family, kind, 25):
        by_id = {e.id: e for e in timeline.events}
        for event in timeline.events:
            if event.answers is not None:
                assert by_id[event.answers].time <= event.time
            if event.role == "assistant" and not timeline.opening:
                assert event.answers is not None


@pytest.mark.parametrize("kind", ["appear", "leave", "state"])
def test_an_alert_shows_in_the_pixels_of_its_second(kind: str) -> None:
    """The last frame of the onset's second differs clearly from the one before it."""
    for seed in range(4):
        timeline = stream("alerting", seed, "train", kind=kind, backgrounds=("plain",))
        scene = world_scene.from_json(timeline.clip.scene)
        for second in said(timeline):
            first, second_frame = (
                world_scene.draw(scene, t + 1 - 1e-3, 64, 64).convert("L")
                for t in (second - 1, second)
            )
            assert changed(first, second_frame) > 0.01, (timeline.clip.id, second)


def changed(one: Image.Image, other: Image.Image) -> float:
    """The part of the pixels that differ by more than noise."""
    spread = ImageChops.difference(one, other).histogram()
    return sum(spread[30:]) / sum(spread)


def test_families_of_every_split() -> None:
    assert set(FAMILIES) | set(HELD_OUT) == set(STORIES)
