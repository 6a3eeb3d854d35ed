"""The leaderboard: what it holds comes back, and only equal cases are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.board import Entry, duel, entry, extended, read_board, write_board
from eval.fields import CaseError
from eval.grades import Grade, Unscored
from tests.eval.made_cases import FIRE, made

GOOD, POOR = Grade(2, 2), Grade(0, 0)


def test_a_board_is_extended_and_read_again(tmp_path: Path) -> None:
    cases = [made(tmp_path, name=name) for name in "ab"]
    path = tmp_path / "board.html"
    assert read_board(path) == []
    one = entry("<b>ours</b>", cases, {"a": GOOD, "b": Unscored("no answer")})
    write_board(path, [one])
    assert read_board(path) == [one]
    two = entry("theirs", cases, {"a": POOR, "b": GOOD})
    write_board(path, extended(read_board(path), [two]))
    assert read_board(path) == [one, two]
    assert extended([one, two], [two]) == [one, two]
    better = entry("theirs", cases, {"a": GOOD, "b": GOOD})
    with pytest.raises(CaseError, match="'theirs' is there already, with another verdict on a"):
        extended([one, two], [better])
    more = entry("theirs", [made(tmp_path, name="c")], {"c": GOOD})
    assert set(extended([two], [more])[0].verdicts) == {"a", "b", "c"}
    page = path.read_text()
    assert "<b>ours</b>" not in page and "&lt;b&gt;ours" in page
    assert "Monitoring and alerting" in page


def test_only_cases_that_were_the_same_for_both_are_compared(tmp_path: Path) -> None:
    cases = [made(tmp_path, name=name) for name in "ab"]
    one = entry("one", cases, {"a": GOOD, "b": GOOD})
    changed = [cases[0], made(tmp_path, FIRE + "memory: 3\n", "b")]
    two = entry("two", changed, {"a": POOR, "b": POOR})
    rate = duel(one, two, 10)
    assert (rate.count, rate.share["win"]) == (1, 1.0)
    assert duel(one, Entry("none", {}), 10).count == 0


@pytest.mark.parametrize(
    "text",
    [
        "<html></html>",
        '<script type="application/json" id="entries">[{]</script>',
        '<script type="application/json" id="entries">[{"name": 3}]</script>',
        '<script type="application/json" id="entries">[{"name": "x", "verdicts": {"a": '
        '{"sha256": "", "scenario": "", "quality": 7, "timing": 1}}}]</script>',
    ],
)
def test_what_is_no_board_is_not_written_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "board.html"
    path.write_text(text)
    with pytest.raises(CaseError, match="is no leaderboard"):
        read_board(path)
