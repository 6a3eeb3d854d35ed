"""Questions over what memory holds: each answer is read off the memory text again."""

from __future__ import annotations

import re
from collections import Counter

from data_pipeline.world.list_wordings import LIST_QUESTIONS
from data_pipeline.world.pictures import COLOURS, picture_set
from data_pipeline.world.stills import Still, still

NAMES = {name: picture.name for picture in picture_set("drawn") for name in picture.names}
NAMES |= {picture.plural: picture.name for picture in picture_set("drawn")}
LONGEST = sorted(NAMES, key=len, reverse=True)
LINE = re.compile(r"(\d+) s(?: assistant)?: (?:An?|Some|The) ([a-z -]+?) (?:appeared|came)\.")


def came(sample: Still) -> list[tuple[int, str, str]]:
    """(second, colour, name) of each line of the memory text that tells of a coming."""
    found = []
    for second, noun in LINE.findall(sample.context):
        colour, _, rest = noun.partition(" ")
        found.append((int(second), colour, rest) if colour in COLOURS else (int(second), "", noun))
    return found


def named(text: str) -> list[str]:
    """The pictures whose names stand in a list, in its order."""
    found = re.findall(rf"\b(?:an?|the|some|pair of) (?:[a-z]+ )??({'|'.join(LONGEST)})\b", text)
    return [NAMES[name] for name in found]


def event(sample: Still) -> str:
    events = (key.split(" | ")[0] for key in sample.compositions)
    return next(each for each in events if each in LIST_QUESTIONS)


def test_lists_are_answered_line_by_line() -> None:
    seen = Counter[str]()
    for seed in range(600):
        sample = still(seed, "train", kind="recall_list")
        past, question = came(sample), sample.question.lower()
        asked, answer = event(sample), sample.answer.lower().rstrip(".")
        at = {name: second for second, _, name in past}
        colours = {name: colour for _, colour, name in past}
        order = [name for _, _, name in past]
        seen[asked] += 1
        if asked == "all_came":
            assert named(answer) == order, sample
        elif asked == "at_each":
            times = [int(n) for n in re.findall(r"(\d+) s\b", question)]
            assert [at[name] for name in named(answer)] == times, sample
        elif asked == "when_each":
            wanted = [f"{at[name]} s" for name in named(question)]
            assert answer == ", ".join(wanted), sample
        elif asked == "came_each":
            wanted = ["yes" if name in at else "no" for name in named(question)]
            assert answer == ", ".join(wanted), sample
        elif asked == "colour_each":
            assert answer == ", ".join(colours[name] for name in named(question)), sample
        else:
            wanted = [order[order.index(name) + 1] for name in named(question)]
            assert named(answer) == wanted, sample
    assert set(seen) == {
        "all_came", "at_each", "when_each", "came_each", "colour_each", "next_each"
    }  # fmt: skip
    assert min(seen.values()) > 20


def test_a_talk_asks_anew_with_every_frame() -> None:
    seen = Counter[str]()
    for seed in range(200):
        sample = still(seed, "train", kind="recall_talk")
        past = came(sample)
        order = [name for _, _, name in past]
        questions = (sample.question, *sample.further)
        answers = (*sample.before, sample.answer)
        assert len(questions) == len(answers) == len(sample.times) > 1
        for question, answer in zip(questions, answers, strict=True):
            asked = [NAMES[n] for n in LONGEST if re.search(rf"\b{n}\b", question.lower())][:1]
            if found := re.fullmatch(r"The .* came at (\d+) s\.", answer):
                assert (int(found[1]), asked[0]) in [(s, name) for s, _, name in past], sample
                seen["when"] += 1
            elif (n := re.search(r"\b(\d+) s", question)) and asked == []:
                assert named(f"{answer.lower()}") == [order[[s for s, *_ in past].index(int(n[1]))]]
                seen["at"] += 1
            elif asked and answer in ("Yes.", "No."):
                assert (asked[0] in order) == (answer == "Yes."), sample
                seen["whether"] += 1
            elif asked and answer.isdigit():
                assert order.count(asked[0]) == int(answer), sample
                seen["times"] += 1
    assert min(seen.values()) > 30 and len(seen) == 4
