"""The measure of verifiers: what is counted as caught and refused, and how settings are chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from benchmarks import verifiers
from benchmarks.verifier_cases import READING, RIGHT, Case, Shown, cases, streams
from benchmarks.verifiers import (
    ALL,
    SIDE,
    Outcome,
    Setting,
    Verifier,
    caught,
    choose,
    choose_together,
    outcomes,
    refused,
    table,
    told,
    tried,
)
from data_pipeline.candidates import Candidate
from data_pipeline.corruption import KINDS
from data_pipeline.desk import Desk
from data_pipeline.families import Step
from data_pipeline.sources.wordings import READ
from joyvl_train.timeline import Clip, Timeline

CANDIDATE = Candidate("0", Timeline(Clip("0", 2.0), "qa", "here"))


def refuses_lines_with(words: str) -> Verifier:
    """An agent that refuses what says one of the words; its setting says how many letters count."""

    def steps(desk: Desk, setting: Setting) -> list[Step]:
        def look(candidate: Candidate) -> Candidate:
            said = " ".join(e.text for e in candidate.timeline.of("assistant"))
            if setting.least and words in said:
                return candidate.rejected("look", "said")
            return candidate.unverified("look", "?") if setting.least > 0.5 else candidate

        return [("look", desk.looking("look", look))]

    settings = tuple(Setting(least=least) for least in (0.0, 0.5, 1.0))
    return Verifier("words", ("commentary",), steps, settings)


def desk() -> Desk:
    return Desk(Shown(SIDE))


def test_every_clip_is_there_right_and_damaged() -> None:
    for family in ALL:
        made = cases(family, "validation", 3, 2, photo=False)
        kinds = Counter(case.kind for case in made)
        assert kinds[RIGHT] == 2 and set(kinds) <= {RIGHT, *KINDS} and len(kinds) >= 4
        assert len({case.candidate.id for case in made}) == len(made)
        assert cases(family, "validation", 3, 2, photo=False) == made


def test_on_screen_words_are_read_out() -> None:
    made: Iterator = streams(READING, "validation", 0, photo=False)
    timeline = next(made)
    captions = {c["text"] for c in timeline.clip.scene["captions"]}
    assert {e.text for e in timeline.of("assistant")} <= captions
    assert all(e.text in READ for e in timeline.of("user"))


def test_what_is_not_admitted_is_caught_or_refused() -> None:
    made = cases("commentary", "validation", 1, 3, photo=False)
    ends = {RIGHT: "unverified", "moved 1 s": "rejected"}
    found = [Outcome(case, ends.get(case.kind, "open")) for case in made]
    hurt = [case for case in made if case.kind != RIGHT]
    moved = sum(case.kind == "moved 1 s" for case in made)
    assert refused(found).value == 1.0 and refused(found).count == 3
    assert caught(found, "moved 1 s").value == 1.0 and caught(found, "wrong object").value == 0.0
    assert caught(found).value == pytest.approx(moved / len(hurt))
    assert caught(found).count == len(hurt)


def test_the_setting_that_catches_most_and_refuses_few_is_chosen() -> None:
    made = cases("commentary", "validation", 1, 4, photo=False)
    # Nothing is refused at 0, everything at 1.
    setting, few = choose(tried(refuses_lines_with("no such words"), made, desk()))
    assert (setting.least, few) == (0.0, True)
    setting, few = choose(tried(refuses_lines_with(""), made, desk()))
    assert (setting.least, few) == (0.0, True)
    always = refuses_lines_with("")
    greedy = Verifier(always.name, always.sees, always.steps, always.settings[1:])
    assert choose(tried(greedy, made, desk()))[1] is False


def ends(kinds: str, admitted: str) -> list[Outcome]:
    """A case a letter, `r` for right ones; `-` are not admitted."""
    pairs = zip(kinds, admitted, strict=True)
    found = []
    for number, (kind, end) in enumerate(pairs):
        case = Case("qa", str(number), RIGHT if kind == "r" else "moved 1 s", CANDIDATE)
        found.append(Outcome(case, "rejected" if end == "-" else "open"))
    return found


def test_settings_of_agents_together_share_what_may_be_refused() -> None:
    kinds = "r" * 10 + "d" * 10
    low, high = Setting(least=0.4), Setting(least=0.8)
    given = [outcome.case for outcome in ends(kinds, "+" * 20)]
    # Each may refuse one right case alone; both high ones would refuse two of ten.
    first = [
        (low, ends(kinds, "+" * 10 + "--" + "+" * 8)),
        (high, ends(kinds, "-" + "+" * 9 + "----" + "+" * 6)),
    ]
    second = [
        (low, ends(kinds, "+" * 10 + "+" * 7 + "---")),
        (high, ends(kinds, "+" * 9 + "-" + "+" * 6 + "----")),
    ]
    assert [choose(found) for found in (first, second)] == [(high, True), (high, True)]
    agents = {"first": first, "second": second}
    assert choose_together(agents, [], given) == {"first": high, "second": low}
    # One that catches what others do already is left out, and so is all that refuses too many.
    assert choose_together({**agents, "third": first[:1]}, [], given) == {
        "first": high,
        "second": low,
    }
    assert choose_together(agents, [ends(kinds, "--" + "+" * 18)], given) == {}


def test_tables_name_every_family_and_kind() -> None:
    made = [case for f in ("commentary", "qa") for case in cases(f, "test", 1, 2, photo=False)]
    one = refuses_lines_with("appeared")
    text = told({"words": outcomes(one, Setting(least=0.5), made, desk())}, [one])
    assert all(f"| {kind} |" in text for kind in KINDS)
    assert "| commentary | words | yes |" in text and "| qa | words |  |" in text
    assert table(["a"], [[1]]) == "| a |\n| --- |\n| 1 |\n"


def test_figures_need_seeds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["verifiers.py", "--seed", "2", "--tuning-seed", "2"])
    with pytest.raises(SystemExit):
        verifiers.main()
