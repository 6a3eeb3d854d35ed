"""Frame after frame: each answer is read off what the scenes show."""

from __future__ import annotations

import re
from collections import Counter

from data_pipeline.world.list_wordings import WATCH_QUESTIONS
from data_pipeline.world.pictures import picture_set
from data_pipeline.world.stills import Still, still

NAMES = {name: picture.name for picture in picture_set("drawn") for name in picture.names}
LONGEST = sorted(NAMES, key=len, reverse=True)


def shown(sample: Still, frame: int) -> Counter[tuple[str, str]]:
    """(picture, colour) of what a frame shows."""
    tracks = sample.scenes[frame].visible(sample.times[frame])
    return Counter((track.picture, track.colour) for track, _ in tracks)


def there(sample: Still, frame: int, name: str, colour: str) -> int:
    found = shown(sample, frame).items() if frame >= 0 else ()
    return sum(n for (p, c), n in found if p == name and (not colour or c == colour))


def named(text: str) -> set[str]:
    return {NAMES[n] for n in re.findall(rf"\b({'|'.join(LONGEST)})\b", text.lower())}


def test_every_frame_is_answered_as_it_is_drawn() -> None:
    seen, yes = Counter[str](), Counter[str]()
    for seed in range(500):
        sample = still(seed, "train", kind="watch")
        keys = (key.split(" | ")[0] for key in sample.compositions)
        event = next(each for each in keys if each in WATCH_QUESTIONS)
        seen[event] += 1
        answers = [*sample.before, sample.answer]
        assert len(answers) == len(sample.times) >= 4
        times = 0
        for frame, answer in enumerate(answers):
            now = {p for p, _ in shown(sample, frame)}
            past = {p for p, _ in shown(sample, frame - 1)} if frame else set()
            if event in ("watch_new", "watch_gone"):
                wanted = now - past if event == "watch_new" else past - now
                assert named(answer) == wanted and bool(wanted) == (answer != "Nothing.")
                continue
            came, left = set(), set()
            for name, colour in sample.sought:
                here, before = (there(sample, at, name, colour) for at in (frame, frame - 1))
                came |= {name} if here and not before else set()
                left |= {name} if before and not here else set()
            if event == "watch_either":
                assert named(answer) == came
            elif event == "watch_times":
                times += len(came)
                assert answer == f"{times}."
            else:
                fits = {"watch_comes": came, "watch_leaves": left}.get(event, here)
                assert answer == ("Yes." if fits else "No."), (sample, frame)
                yes[answer] += 1
    assert set(seen) == set(WATCH_QUESTIONS) and min(seen.values()) > 20
    assert 0.15 < yes["Yes."] / yes.total() < 0.6


def test_a_colour_that_is_asked_for_has_one_of_another_colour_beside_it() -> None:
    coloured = 0
    for seed in range(200):
        sample = still(seed, "train", kind="watch")
        for name, colour in sample.sought:
            if colour:
                coloured += 1
                tones = {
                    c for i in range(len(sample.times)) for p, c in shown(sample, i) if p == name
                }
                assert tones <= {t.colour for t in sample.things if t.picture.name == name}
                assert len({t.colour for t in sample.things if t.picture.name == name}) == 2
    assert coloured > 10
