"""Samples with frames: answers against what the scenes show."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

import pytest

from data_pipeline.world import backgrounds, languages, stills
from data_pipeline.world.pictures import COLOURS, Picture, picture, picture_set
from data_pipeline.world.scene import Key, Track
from data_pipeline.world.splits import Split
from data_pipeline.world.stills import Still, still
from data_pipeline.world.stills_single import ADJECTIVES, PLACES
from data_pipeline.world.stills_sketch import FILMED
from data_pipeline.world.words import a, capital, listed

Seen = tuple[Track, Key]


def some(kind: str, count: int = 120, split: Split = "train") -> list[Still]:
    return [still(i, split, kind=kind) for i in range(count)]


def seen(sample: Still, frame: int = 0) -> list[Seen]:
    """What the frame shows, read from the scene alone."""
    return sample.scenes[frame].visible(sample.times[frame])


def shown(track: Track) -> Picture:
    return picture(track.picture)


def noun(track: Track) -> str:
    return f"{track.colour} {track.picture}" if track.colour else track.picture


def with_article(track: Track) -> str:
    return a(noun(track), shown(track).article)


def line(tracks: Sequence[Track]) -> str:
    return f"{capital(listed([with_article(track) for track in tracks]))}."


def asked(sample: Still, *events: str) -> tuple[str, str]:
    """The event and the thing that the question is about, as its composition says."""
    for key in sample.compositions:
        event, thing, _ = key.split(" | ")
        if event in events:
            return event, thing
    raise AssertionError(f"{events} not in {sample.compositions}")


def matches(track: Track, thing: str) -> bool:
    """Whether the track is a "dog", or a "red ball"."""
    return thing in (track.picture, noun(track))


def place(key: Key) -> str:
    def third(value: float) -> int:
        return -1 if value < 0.36 else 1 if value > 0.64 else 0

    return PLACES[third(key.x), third(key.y)]


# Single frames.


def test_name_is_that_of_the_only_thing() -> None:
    for sample in some("name"):
        ((track, key),) = seen(sample)
        assert sample.answer == f"{capital(a(track.picture, shown(track).article))}."
        assert 0.25 <= key.size <= 0.6


@pytest.mark.parametrize("kind", ["name_all", "colours"])
def test_things_are_listed_left_to_right_with_their_colours(kind: str) -> None:
    for sample in some(kind):
        tracks = [track for track, key in sorted(seen(sample), key=lambda item: item[1].x)]
        assert sample.answer == line(tracks)
        # Where colours are said, all that comes in colours has one.
        assert all(track.colour for track in tracks if shown(track).colours)


def test_describe_gives_place_colour_and_state_of_each() -> None:
    for sample in some("describe"):
        parts = []
        order = {words: part for part, words in PLACES.items()}
        for track, key in sorted(seen(sample), key=lambda item: order[place(item[1])]):
            told = with_article(track)
            if track.picture in ("door", "box", "book", "umbrella") or key.state in ADJECTIVES:
                told = f"{a(key.state)} {noun(track)}"
            elif track.picture in ("lamp", "traffic light"):
                told += f" that is {key.state}"
            parts.append(f"{place(key)} {told}")
        assert sample.answer == f"{capital(listed(parts))}."


def test_colour_is_that_of_the_thing_asked_about() -> None:
    for sample in some("colour"):
        _, thing = asked(sample, "colour")
        (track,) = [track for track, _ in seen(sample) if matches(track, thing)]
        assert sample.answer == f"{capital(track.colour)}."


def test_state_is_the_one_shown() -> None:
    events = Counter()
    for sample in some("state", 200):
        event, thing = asked(sample, "how_is", "is_state")
        (key,) = [key for track, key in seen(sample) if track.picture == thing]
        events[event] += 1
        if event == "how_is":
            assert sample.answer == f"{capital(key.state)}."
        else:
            question = sample.question
            named = [s for s in picture(thing).states if re.search(rf"\b{s}\b", question)]
            assert sample.answer == ("Yes." if named == [key.state] else "No.")
    assert min(events.values()) > 40


def test_where_is_the_part_that_holds_the_centre() -> None:
    for sample in some("where"):
        _, thing = asked(sample, "where")
        (key,) = [key for track, key in seen(sample) if track.picture == thing]
        assert sample.answer == f"{capital(place(key))}."
    assert {sample.answer for sample in some("where", 300)} == {
        f"{capital(words)}." for words in PLACES.values()
    }


def test_count_is_the_number_of_them() -> None:
    numbers = Counter()
    for sample in some("count", 300):
        _, thing = asked(sample, "count")
        assert sample.answer == str(sum(matches(track, thing) for track, _ in seen(sample)))
        numbers[sample.answer] += 1
    assert set(numbers) == set("0123456")
    assert max(numbers.values()) < 0.4 * 300


def test_count_all_counts_each_kind() -> None:
    for sample in some("count_all"):
        counts = Counter(track.picture for track, _ in seen(sample))
        said = {
            picture.name: int(found[1])
            for picture in picture_set("drawn")
            if (found := re.search(rf"(\d+) ({picture.name}|{picture.plural})\b", sample.answer))
        }
        assert said == counts


def test_is_there_is_true_half_of_the_time_and_looks_alike_otherwise() -> None:
    answers, alike = Counter(), 0
    for sample in some("is_there", 500):
        _, thing = asked(sample, "is_there")
        there = any(matches(track, thing) for track, _ in seen(sample))
        assert sample.answer == ("Yes." if there else "No.")
        answers[sample.answer] += 1
        name = thing.split(" ", 1)[1] if thing.split(" ")[0] in COLOURS else thing
        if not there and any(
            shown(track).category == picture(name).category for track, _ in seen(sample)
        ):
            alike += 1
    assert 0.4 < answers["Yes."] / 500 < 0.6
    assert alike > answers["No."] / 2


def test_compare_goes_by_size_and_looks() -> None:
    same = Counter()
    for sample in some("compare", 300):
        (one, first), (two, second) = seen(sample)
        event, _ = asked(sample, "bigger", "smaller", "same")
        if event == "same":
            equal = (one.picture, one.colour, first.state) == (
                two.picture,
                two.colour,
                second.state,
            )
            assert sample.answer == ("Yes." if equal else "No.")
            same[sample.answer] += 1
            continue
        big, small = (one, two) if first.size > second.size else (two, one)
        assert max(first.size, second.size) >= 1.45 * min(first.size, second.size)
        assert sample.answer == f"The {(big if event == 'bigger' else small).picture}."
    assert 0.35 < same["Yes."] / same.total() < 0.65


def test_beside_names_the_other_thing() -> None:
    for sample in some("beside"):
        _, thing = asked(sample, "beside")
        (key,) = [key for track, key in seen(sample) if track.picture == thing]
        ((other, spot),) = [(t, k) for t, k in seen(sample) if t.picture != thing]
        assert sample.answer == line([other])
        dx, dy = spot.x - key.x, spot.y - key.y
        across = "to the right of" if dx > 0 else "to the left of"
        side = across if abs(dx) > abs(dy) else "below" if dy > 0 else "above"
        assert side in sample.question and abs(abs(dx) - abs(dy)) > 0.1


def test_read_translate_and_language_follow_the_caption() -> None:
    texts = dict(languages.WORDS) | dict(languages.LINES)
    texts |= {key: english for key, (_, english) in languages.ROMANIZED.items()}
    for sample in some("read") + some("translate") + some("language"):
        (caption,) = sample.scenes[0].captions
        if sample.kind == "read":
            assert sample.answer == caption.text.split("\n")[0]
        elif sample.kind == "translate":
            assert sample.answer == capital(texts[caption.language, caption.text])
        else:
            assert sample.answer == f"{languages.NAMES[caption.language]}."
            same = [code for code, text in texts if text.casefold() == caption.text.casefold()]
            assert same == [caption.language]


def test_a_thing_at_the_edge_has_most_of_its_box_in_the_frame() -> None:
    cut = 0
    for sample in some("name", 200):
        ((_, key),) = seen(sample)
        inside = [min(v + key.size / 2, 1) - max(v - key.size / 2, 0) for v in (key.x, key.y)]
        assert inside[0] * inside[1] >= 0.55 * key.size**2
        cut += min(inside) < 0.95 * key.size
    assert 10 < cut < 60


def test_before_footage_nobody_asks_for_what_it_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backgrounds, "footage_clips", lambda split=None: ["street"])
    for kind in ("count", "is_there"):
        for i in range(200):
            sample = still(i, "train", kind=kind, backgrounds=("footage",))
            _, thing = asked(sample, kind)
            assert thing.split(" ")[-1] not in FILMED


def test_things_lie_inside_the_frame_and_apart() -> None:
    for kind in (
        *stills.stills_single.KINDS,
        *stills.stills_binding.KINDS,
        *stills.stills_several.KINDS,
    ):
        if kind == "name":
            continue
        for sample in some(kind, 25):
            for frame in range(len(sample.scenes)):
                keys = [key for _, key in seen(sample, frame)]
                for key in keys:
                    edge = key.size / 2 - 0.08
                    assert edge <= key.x <= 1 - edge and edge <= key.y <= 1 - edge
                for one, two in itertools.combinations(keys, 2):
                    far = max(abs(one.x - two.x), abs(one.y - two.y))
                    assert far >= 0.4 * (one.size + two.size), sample


# Several frames.


def views(sample: Still) -> list[dict[str, Seen]]:
    """Of each frame, what it shows by name."""
    return [{t.picture: (t, k) for t, k in seen(sample, i)} for i in range(len(sample.times))]


def changes(sample: Still, coloured: bool) -> list[str]:
    """What differs from frame to frame, as a response says it, in order."""
    found = []
    for before, after in itertools.pairwise(views(sample)):
        for name in (*before, *(n for n in after if n not in before)):
            track, key = after.get(name) or before[name]
            said = noun(track) if coloured else name
            if name not in before:
                found.append(f"{capital(a(said, shown(track).article))} appeared.")
            elif name not in after:
                found.append(f"The {said} left.")
            elif (old := before[name][1]).state != key.state:
                found.append(f"The {said} is {key.state}.")
            elif (dx := key.x - old.x) or key.y != old.y:
                way = ("to the right" if dx > 0 else "to the left") if dx else ""
                way = way or ("down" if key.y > old.y else "up")
                found.append(f"The {said} moved {way}.")
    return found


@pytest.mark.parametrize("kind", ["happened", "summarize"])
def test_what_happened_is_what_differs_between_the_frames(kind: str) -> None:
    lengths = Counter()
    for sample in some(kind, 200):
        found = changes(sample, "colour" in sample.question.lower())
        assert sample.answer == (" ".join(found) or "Nothing changed.")
        assert 2 <= len(sample.times) <= 6 and len(set(sample.times)) == len(sample.times)
        assert list(sample.times) == sorted(sample.times)
        lengths[len(found)] += 1
    assert set(lengths) == ({0, 1} if kind == "happened" else {2, 3, 4})


def test_happened_reaches_every_change() -> None:
    answers = " ".join(sample.answer for sample in some("happened", 300))
    for word in ("appeared", "left", "is open", "moved to the right", "up", "down", "Nothing"):
        assert word in answers


@pytest.mark.parametrize("kind", ["new", "missing"])
def test_first_and_last_frame_are_compared(kind: str) -> None:
    for sample in some(kind):
        first, *_, last = views(sample)
        more, less = (last, first) if kind == "new" else (first, last)
        found = sorted((more[n] for n in more if n not in less), key=lambda item: item[1].x)
        assert sample.answer == (line([track for track, _ in found]) if found else "Nothing.")


def test_which_frame_is_the_only_one() -> None:
    ordinals = ("first", "second", "third", "fourth", "fifth", "sixth")
    found = set()
    for sample in some("which", 200):
        _, thing = asked(sample, "which")
        (at,) = [i for i, view in enumerate(views(sample)) if thing in view]
        assert sample.answer == f"In the {ordinals[at]} picture."
        found.add(at)
    assert found == set(range(6))


def test_different_things_are_counted_over_all_frames() -> None:
    for sample in some("different"):
        assert sample.answer == str(len({name for view in views(sample) for name in view}))


def test_order_is_that_of_coming() -> None:
    for sample in some("order"):
        tracks: list[Track] = []
        for view in views(sample):
            tracks += [t for t, _ in view.values() if t not in tracks]
        assert sample.answer == line(tracks)
