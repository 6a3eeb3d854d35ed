"""Files that somebody broke, or meant to break with: one clear line each, and nothing misread."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.case import CaseError, read_case
from eval.rating import read_ratings
from eval.recorded import read_recorded
from eval.suite import View, frames_of, lacking, slug
from tests.eval.made_cases import FIRE, changed, made
from tests.joyvl_train.videos import make_video

ABOUT = "about: Smoke comes first; only fire is asked for."


@pytest.mark.parametrize(
    "value",
    ["!!timestamp foo", "!!bool foo", '!!int ""', '!!float ""', '"\\UFFFFFFFF"', "0x" + "f" * 5000],
)
def test_values_that_are_none(tmp_path: Path, value: str) -> None:
    with pytest.raises(CaseError, match=r"fire\.yaml: "):
        made(tmp_path, changed(ABOUT, f"about: {value}"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (ABOUT, 'about: "a\\ud800b"', "half of a character|no YAML"),
        ("facts: [fire|flames]", "similar: false", "similar is false"),
        ("facts: [fire|flames]", "facts: [null]", "takes a text or a list of texts"),
        ("facts: [fire|flames]", "facts: ~", "takes a text or a list of texts"),
        (
            "{thing: smoke, from: 8, to: 20}",
            "{thing: lamp, states: {6: 'on', 0x6: 'off'}}",
            "given twice",
        ),
    ],
)
def test_values_that_mean_something_else(tmp_path: Path, old, new, message) -> None:
    with pytest.raises(CaseError, match=message):
        made(tmp_path, changed(old, new))


def test_an_empty_file_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(CaseError, match="nothing is there; give names with values") as told:
        read_case(tmp_path / "empty.yaml")
    assert "quote" not in str(told.value)


def test_a_name_longer_than_any_file(tmp_path: Path) -> None:
    text = FIRE[: FIRE.index("stream:")] + f"stream: {{video: {'a' * 5000}}}\n"
    case = made(tmp_path, text + FIRE[FIRE.index("user:") :].replace(", seen: fire came", ""))
    assert "can't be looked at" in lacking(case)


def test_what_comes_after_a_videos_end(tmp_path: Path) -> None:
    make_video(tmp_path / "short.mp4", [n / 10 for n in range(50)])
    text = FIRE[: FIRE.index("stream:")] + "stream: {video: short.mp4}\n"
    view = View(64, str(tmp_path / "cache"))
    quiet = text + "quiet:\n  - {from: 2, to: 90}\n"
    with pytest.raises(CaseError, match="quiet up to second 90, but its stream lasts 5 s"):
        frames_of(made(tmp_path, quiet), view)
    due = text + FIRE[FIRE.index("user:") : FIRE.index("quiet:")].replace(", seen: fire came", "")
    with pytest.raises(CaseError, match="something in second 24, but its stream lasts 5 s"):
        frames_of(made(tmp_path, due), view)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"case": "a", "time": 6, "text": "a\\ud800"}', "half of a character"),
        ('{"case": "a", "time": 6, "time": 7, "text": "x"}', "time is given twice"),
        ('{"case": "a"', "no JSON"),
        ('{"case": "a", "text": "' + "x" * (1 << 20) + '", "time": 1}', "characters, at most"),
    ],
)
def test_recorded_lines(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "app.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(CaseError, match=message):
        read_recorded(path)


def test_recorded_lines_as_others_write_them(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    item = {"case": "a", "time": 3, "text": "one\u2028two"}
    path.write_text("\ufeff" + json.dumps(item, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert read_recorded(path).last("a") == 3
    lines = [json.dumps({"case": "a", "time": 0, "text": str(n)}) for n in range(50_000)]
    path.write_text("\n".join(lines))
    assert read_recorded(path).last("a") == 49_999


def test_names_without_latin_letters_have_folders_of_their_own() -> None:
    names = [slug("アプリ"), slug("应用"), slug("App 1")]
    assert len(set(names)) == 3 and all(names) and names[2] == "app_1"


@pytest.mark.parametrize(
    ("key", "ratings", "message"),
    [
        ({"p": {"case": "c", "left": "a", "right": "b", "scenario": "s"}}, {}, "rates nothing"),
        (None, {"p": {}}, "no key of a rating page"),
        ({"p": None}, {"p": {}}, "no key of a rating page"),
        ({"p": {}}, {"p": {}}, "no key of a rating page"),
    ],
)
def test_torn_ratings(tmp_path: Path, key, ratings, message) -> None:
    (tmp_path / "key.json").write_text(json.dumps({"page": "x", "pairs": key}))
    rated = {"page": "x", "rater": "ann", "ratings": ratings}
    (tmp_path / "ann.json").write_text(json.dumps(rated))
    with pytest.raises(CaseError, match=message):
        read_ratings(tmp_path / "ann.json", tmp_path / "key.json")
