"""Counts that stay countable, whatever the records call themselves."""

from __future__ import annotations

from data_pipeline.funnel import MOST_NAMES, OTHERS, Funnel, merged
from recipes.corpus import metrics
from tests.data_pipeline.made_corpus import candidate


def test_names_that_records_bring_are_bounded_and_no_clip_is_lost() -> None:
    parts = []
    for part in range(3):
        funnel = Funnel()
        for n in range(MOST_NAMES):
            funnel.add(candidate(n, video="a.mp4", family=f"family {part} {n}"))
        parts.append(funnel.to_json())
    whole = merged(parts)
    families = whole.by["family"]
    assert len(families) == MOST_NAMES + 1
    assert families[OTHERS].clips == 2 * MOST_NAMES
    assert sum(tally.clips for tally in families.values()) == whole.whole.clips == 3 * MOST_NAMES


def test_names_that_no_table_can_show_are_counted_together() -> None:
    funnel = Funnel()
    for n, name in enumerate(("qa", "x" * 5000, "a\nb", "\x1b[2J", "qa")):
        funnel.add(candidate(n, video="a.mp4", family=name))
    assert {name: tally.clips for name, tally in funnel.by["family"].items()} == {
        "qa": 2,
        OTHERS: 3,
    }


def test_a_family_takes_no_others_key() -> None:
    funnel = Funnel()
    for n, name in enumerate(("qa", "qa/hours", "qa hours")):
        funnel.add(candidate(n, video="a.mp4", family=name))
    found = metrics(3, funnel, {})
    assert found["corpus/family/qa"] == 1 and found["corpus/family/qa_hours"] == 2
    assert found["corpus/family/qa/hours"] == found["corpus/hours"] / 3  # type: ignore[operator]
