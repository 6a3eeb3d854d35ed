"""The rating page: blind, drawn by seed, and what comes of its exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.world.streams import WorldFrames
from eval.fields import CaseError
from eval.grades import Grade
from eval.play import play
from eval.rating import draw_items, rating_page, read_ratings, together
from eval.systems import TRIVIAL, Fixed, Recorded
from joyvl_train.actions import Delegation, Response
from joyvl_train.heldout import Step, Trace
from tests.eval.made_cases import made

PAIRS = [(f"case {n}", "ours", "rival") for n in range(40)]


def test_sides_and_order_are_drawn_by_seed() -> None:
    still = Trace("c", "x", "eval", "x", (), ())
    spoke = Trace("c", "x", "eval", "x", (Step(3, Response("Hi.")),), ())
    traces = {name: {case: still for case, *_ in PAIRS} for name in ("ours", "rival")}
    items = draw_items(PAIRS, traces, 1)
    assert items == draw_items(PAIRS, traces, 1) != draw_items(PAIRS, traces, 2)
    # Ratings of what another run said are none of this one's.
    again = draw_items(PAIRS, {**traces, "ours": {case: spoke for case, *_ in PAIRS}}, 1)
    assert not {item.id for item in again} & {item.id for item in items}
    assert [item.case for item in items] != [case for case, *_ in PAIRS]
    assert 8 <= sum(item.left == "ours" for item in items) <= 32
    assert len({item.id for item in items}) == 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    case = made(tmp_path)
    frames = WorldFrames(case.timeline, 32)
    said = {24: Response("A <b>fire</b> appeared."), 30: Delegation("Let me see.", "Secret?")}
    ours = play(case, frames, Recorded("ours", {"fire": said})).trace
    rival = play(case, frames, Fixed("x", "Yes.", TRIVIAL["always silent"])).trace
    traces = {"ours-system": {"fire": ours}, "rival-system": {"fire": rival}}
    items = draw_items([("fire", "ours-system", "rival-system")], traces, 0)
    out = tmp_path / "out"
    out.mkdir()
    rating_page(out, items, {"fire": case}, traces, {"fire": frames.frames})
    return out


def test_the_page_names_no_system_and_loads_nothing(folder: Path) -> None:
    page = (folder / "rating.html").read_text()
    assert "ours-system" not in page and "rival-system" not in page and "Secret?" not in page
    assert "A &lt;b&gt;fire&lt;/b&gt; appeared." in page and "Let me see." in page
    for outside in ("http://", "https://", 'src="/', "@import"):
        assert outside not in page.replace("http://www.w3.org/2000/svg", "")
    # The strips say what was said, not whether it was right.
    assert "false alarm" not in page and "missed" not in page.split("<main>")[1]


def exported(folder: Path, name: str, left: str, right: str, **changes) -> Path:
    key = json.loads((folder / "rating_key.json").read_text())
    (pair,) = key["pairs"]
    given = {f"left_{axis}": left for axis in ("quality", "timing")}
    given |= {f"right_{axis}": right for axis in ("quality", "timing")}
    data = {"page": key["page"], "rater": name, "ratings": {pair: given}} | changes
    path = folder / f"{name}.json"
    path.write_text(json.dumps(data))
    return path


def test_ratings_find_their_systems_again(folder: Path) -> None:
    key = folder / "rating_key.json"
    (pair,) = json.loads(key.read_text())["pairs"].values()
    left, right = pair["left"], pair["right"]
    first = read_ratings(exported(folder, "ann", "good", "poor"), key)
    second = read_ratings(exported(folder, "bob", "fair", "fair"), key)
    assert first.rater == "ann" and first.scenarios == {"fire": "monitoring"}
    assert first.grades == {("fire", left, right): Grade(2, 2), ("fire", right, left): Grade(0, 0)}
    assert together([first, second]) == {
        ("fire", left, right): Grade(1.5, 1.5),
        ("fire", right, left): Grade(0.5, 0.5),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"page": "other"}, "of another rating page"),
        ({"ratings": {"p123": {}}}, "'p123' is no pair of the page"),
        ({"ratings": []}, "rates nothing"),
        ({"rater": " "}, "rater is"),
        ({"extra": 1}, "extra is not known"),
    ],
)
def test_what_is_no_export_of_the_page_is_refused(folder: Path, changes, message: str) -> None:
    path = exported(folder, "ann", "good", "poor", **changes)
    with pytest.raises(CaseError, match=message):
        read_ratings(path, folder / "rating_key.json")
    for left in ("great", 2, None):
        with pytest.raises(CaseError, match="none of poor, fair, good"):
            read_ratings(exported(folder, "ann", left, "poor"), folder / "rating_key.json")
    with pytest.raises(CaseError, match="there is no such file"):
        read_ratings(folder / "none.json", folder / "rating_key.json")
