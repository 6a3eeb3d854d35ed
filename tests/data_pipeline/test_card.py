"""The card says what the numbers say."""

from __future__ import annotations

from collections import Counter

import pytest
import yaml

from data_pipeline.candidates import Candidate
from data_pipeline.card import Checks, card, reasons
from data_pipeline.funnel import Funnel
from tests.data_pipeline.made_corpus import candidate

FAMILIES = ("alerting", "alerting", "qa", "qa")


def funnel() -> Funnel:
    """Two clips admitted, one rejected, one unverified, three refused."""
    made = Funnel()
    clips = [candidate(n, video=f"videos/{n}.mp4", family=f) for n, f in enumerate(FAMILIES)]
    ends = [
        clips[0].kept("local").kept("global"),
        clips[1].changed("normalise").kept("local").rejected("global", "not right | at all"),
        clips[2].unverified("local", "unsure"),
        clips[3].kept("local").kept("global"),
    ]
    for one in ends:
        made.add(one)
    made.read += 3
    made.refused = Counter({"past the end": 2, "missing file": 1})
    made.status["refused"] += 3
    return made


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    after = text.partition(f"## {heading}\n")[2]
    found = []
    for line in after.splitlines():
        if line.startswith("|"):
            cells = line.replace("\\|", "/").strip("|").split("|")
            found.append([cell.strip() for cell in cells])
        elif found:
            break
    return found[2:]


def test_the_numbers_of_the_card() -> None:
    text = card("events", funnel(), Checks(agents={"local_verifier": "local_verifier@1"}), {})
    assert "2 clips, 0.01 hours, 4 events; 95.0% of the seconds are silent" in text
    assert rows(text, "What is in it") == [
        ["alerting", "1", "0.01", "2", "95.0%"],
        ["qa", "1", "0.01", "2", "95.0%"],
    ]
    told = "7 candidates: 2 admitted, 1 rejected, 1 unverified, 3 refused before any stage."
    assert told in text
    assert rows(text, "What was read, and what became of it") == [
        ["local", "4", "3", "0", "0", "1"],
        ["global", "3", "2", "0", "1", "0"],
        ["normalise", "1", "0", "1", "0", "0"],
    ]
    assert rows(text, "Why clips are not in it") == [
        ["plan", "refused", "past the end", "2"],
        ["global", "rejected", "not right / at all", "1"],
        ["local", "unverified", "unsure", "1"],
        ["plan", "refused", "missing file", "1"],
    ]
    assert "Nothing: no agent was asked." in text
    assert sum(row[3] for row in reasons(funnel())) == 5


def test_the_head_is_what_hubs_read() -> None:
    text = card("events", funnel(), Checks(), {})
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == ["other"]  # CC0, of no version
    assert head["language"] == ["en"] and head["size_categories"] == ["n<1K"]
    assert head["configs"] == [{"config_name": "default", "data_files": "shard-*.parquet"}]


@pytest.mark.parametrize("language", ["no", "y: [", "zh"])
def test_the_head_can_be_read_whatever_the_languages(language: str) -> None:
    made = Funnel()
    made.add(candidate(1, language=language))
    head = yaml.safe_load(card("events", made, Checks(), {}).split("---\n")[1])
    assert head["language"] == [language]


def test_costs_and_shares() -> None:
    counts = {
        "asked": 3.0,
        "calls": 2.0,
        "cached": 1.0,
        "tokens": 90.0,
        "seconds": 1.5,
        "cost": 0.25,
    }
    target = {"what": "silence", "target": 0.8, "before": 0.7, "after": 0.75}
    met = {**target, "met": False, "why": "too few clips are more silent"}
    text = card("events", funnel(), Checks(), {"a": counts, "b": counts}, [met])
    assert rows(text, "What it cost")[-1] == ["all", "6", "4", "2", "0", "0", "180", "3", "0.5"]
    assert rows(text, "Shares that were asked for") == [
        ["silence", "80.0%", "70.0%", "75.0%", "no: too few clips are more silent"]
    ]


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        (Checks("off", agents={"x": "x@1"}), "nobody has looked"),
        (Checks(left_out=["local"], tools=["ocr"]), "checked by rules and tools (ocr). Left out"),
        (Checks(model="m", agents={"x": "x@1"}), "2 clips passed both"),
        (Checks(exact=True), "labels are exact. No model"),
    ],
)
def test_it_says_who_looked(checks: Checks, words: str) -> None:
    assert words in card("world", funnel(), checks, {})


def test_an_empty_corpus_has_a_card() -> None:
    made = Funnel()
    made.add(_rejected())
    text = card("events", made, Checks(), {})
    assert "0 clips, 0.00 hours, 0 events; – of the seconds" in text


def _rejected() -> Candidate:
    return candidate("gone").rejected("rules", "too easy")
