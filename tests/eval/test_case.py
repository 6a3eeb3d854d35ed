"""Case files: what they come to, and what is said of those that are wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from eval.case import CaseError, case_files, read_case, read_cases
from joyvl_train.timeline import Rule
from joyvl_train.timing import due
from tests.eval.made_cases import FIRE, changed, made


def test_a_case_becomes_a_timeline(tmp_path: Path) -> None:
    case = made(tmp_path)
    assert (case.id, case.scenario, case.seconds) == ("fire", "monitoring", 40)
    assert case.digest == hashlib.sha256(FIRE.encode()).hexdigest()
    assert case.quiet == (range(3, 24),)
    asked, said = case.timeline.events
    assert (asked.second, asked.role, said.second, said.answers) == (2, "user", 24, asked.id)
    assert said.rule == Rule("key_facts", ("fire|flames",))
    (onset,) = due(case.timeline)
    assert (onset.window, onset.held) == (range(24, 26), range(24, 36))


def test_windows_hold_for_the_case_or_for_one_response(tmp_path: Path) -> None:
    text = changed("{from: 3, to: 24}", "{from: 3, to: 20}")
    text = text.replace("stream:", "window: {early: 1, late: 3}\nstream:", 1)
    case = made(tmp_path, text)
    (onset,) = due(case.timeline, None, case.early, case.late)
    assert onset.window == range(23, 28)
    case = made(tmp_path, text.replace("until: 36,", "until: 36, late: 0,"))
    (onset,) = due(case.timeline, None, case.early, case.late)
    assert onset.window == range(23, 25)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("number: 3", Rule("number", ("3",))),
        ("number: [3]", Rule("number", ("3",))),
        ("exact: [Dog, Hound]", Rule("exact", ("Dog", "Hound"))),
        ("similar: true", Rule("similarity")),
        ("judged: Names the fire.", Rule("judged", ("Names the fire.",))),
    ],
)
def test_ways_to_judge_a_text(tmp_path: Path, rule: str, wanted: Rule) -> None:
    case = made(tmp_path, changed("facts: [fire|flames]", rule))
    assert case.timeline.of("assistant")[0].rule == wanted


def test_a_delegation_and_its_result(tmp_path: Path) -> None:
    text = FIRE + ("background:\n  - {id: back, at: 34, says: 12 x 12 is 144., answers: task}\n")
    text = text.replace(
        "quiet:",
        '  - {id: task, at: 30, says: Let me see., delegates: "What is 12 x 12?"}\n'
        "  - {at: 34, says: It is 144., number: 144, answers: back}\nquiet:",
    )
    case = made(tmp_path, text)
    task, result, told = case.timeline.events[-3:]
    assert (task.question, task.rule) == ("What is 12 x 12?", None)
    assert (result.role, result.answers, told.answers) == ("background", "task", "back")


def test_a_video_beside_the_case(tmp_path: Path) -> None:
    start = FIRE.index("stream:")
    end = FIRE.index("user:")
    text = FIRE[:start] + f"stream: {{video: yard.mp4, sha256: {'a' * 64}}}\n" + FIRE[end:]
    case = made(tmp_path, text.replace(", seen: fire came", ""))
    assert case.video is not None and case.video.path == "yard.mp4"
    assert case.seconds is None and case.timeline.clip.video == "yard.mp4"


WRONG = {
    "no scenario": (changed("scenario: monitoring\n", ""), "scenario is missing"),
    "unknown key": (FIRE + "quite: 3\n", r"quite is not known; .* Did you mean quiet"),
    "unknown key of a thing": (changed("from: 8,", "form: 8,"), r"things\[0\]: form is not known"),
    "key given twice": (FIRE + "about: Again.\n", "about is given twice"),
    "no mapping": ("- 3\n", r"\[3\] is no mapping"),
    "no yaml": ("about: [\n", "no YAML"),
    "a reference": ("a: &x [1]\nb: *x\n", "references are not taken"),
    "python tag": ("a: !!python/object/apply:os.system [ls]\n", "no YAML"),
    "seconds as text": (changed("seconds: 40", "seconds: forty"), "seconds is 'forty'; it takes"),
    "no seconds at all": (changed("seconds: 40", "seconds: 0"), "seconds is 0"),
    "absurd seconds": (changed("seconds: 40", "seconds: 1000000000"), "seconds is 1000000000"),
    "half a second": (changed("{at: 2,", "{at: 2.5,"), "at is 2.5; it takes a whole number"),
    "user past the end": (changed("{at: 2,", "{at: 40,"), "at is 40; it takes .* from 0 to 39"),
    "gold past the end": (changed("{at: 24,", "{at: 44,"), "at is 44"),
    "nan": (changed("{at: 2,", "{at: .nan,"), "at is nan"),
    "true for a number": (changed("{at: 2,", "{at: true,"), "at is True"),
    "no such thing": (changed("thing: smoke", "thing: dragon"), "no picture 'dragon'"),
    "no such colour": (changed("{thing: fire,", "{thing: fire, colour: mauve,"), "mauve"),
    "no such place": (
        changed("{thing: fire,", "{thing: fire, place: middle,"),
        "place is 'middle', none of top left",
    ),
    "place is taken": (
        changed(
            "{thing: smoke,", "{thing: fire, from: 30, place: top right}\n    - {thing: smoke,"
        ).replace("{thing: fire, from: 24", "{thing: fire, place: top right, from: 24"),
        "top right is taken by the fire from 30 on",
    ),
    "gone before it comes": (changed("from: 8, to: 20", "from: 8, to: 8"), "to is 8"),
    "no such texture": (changed("texture: bricks", "texture: brick"), "Did you mean bricks"),
    "two backgrounds": (changed("{texture: bricks}", "{texture: bricks, plain: sky}"), "takes one"),
    "state of what has none": (
        changed("{thing: smoke,", "{thing: smoke, states: {9: open},"),
        "'smoke' has no states",
    ),
    "state that yaml read": (
        changed("{thing: smoke,", "{thing: lamp, states: {9: on},"),
        "states: True is none of off, on; quote on and off",
    ),
    "bounce from below": (
        changed("{thing: smoke,", "{thing: ball, place: bottom left, bounces: [12],"),
        "bounces from a place at the top",
    ),
    "bounces too close": (
        changed("{thing: smoke,", "{thing: ball, place: top left, bounces: [12, 13],"),
        "13 comes too soon after 12",
    ),
    "not what the script says": (
        changed("seen: fire came", "seen: smoke came"),
        "'smoke came' at 24, but by the script: 8",
    ),
    "seen nowhere": (changed("seen: fire came", "seen: fire left"), "by the script: 36"),
    "two ways to judge": (changed("facts: [fire|flames]", "facts: [fire], number: 3"), "one way"),
    "empty fact": (changed("facts: [fire|flames]", "facts: ['']"), "facts is"),
    "answers nothing": (changed("until: 36,", "until: 36, answers: q7,"), "'q7', which is no id"),
    "ends before it starts": (changed("until: 36", "until: 20"), "until is 20"),
    "two in a second": (
        FIRE.replace("quiet:", "  - {at: 24, says: Fire., facts: [fire]}\nquiet:"),
        "two in one second",
    ),
    "result before its delegation": (
        FIRE + "background:\n  - {at: 34, says: Done., answers: nobody}\n",
        "'nobody', which is no id",
    ),
    "control token said": (changed("A fire appeared.", "</silence>"), "format"),
    "quiet where something is due": (
        changed("{from: 3, to: 24}", "{from: 3, to: 30}"),
        "due or holds in second 24",
    ),
    "no facts": (changed("facts: [fire|flames]", "facts: []"), r"facts is \[\]"),
    "number that is none": (
        changed("facts: [fire|flames]", "number: several"),
        "number is 'several'; it takes a number",
    ),
    "mapping for a name": (FIRE + "? [a]\n: 3\n", "plain word; quote"),
    "date that is none": (changed("about: Smoke", "about: 2024-13-45 #"), "no YAML"),
    "no such footage": (changed("{texture: bricks}", "{footage: oceans}"), "Did you mean ocean"),
    "state after it left": (
        changed("{thing: smoke,", "{thing: door, states: {22: open},"),
        "22 is no second in which it is there",
    ),
    "bounce after it left": (
        changed("{thing: smoke,", "{thing: ball, place: top left, bounces: [30],"),
        "30 is no second in which it is there",
    ),
    "url without a hash": (
        FIRE[: FIRE.index("stream:")]
        + "stream: {video: 'https://example.org/a.mp4'}\n"
        + FIRE[FIRE.index("user:") :],
        "the sha256 is needed",
    ),
    "url of a file": (
        FIRE[: FIRE.index("stream:")]
        + f"stream: {{video: 'file:///etc/passwd', sha256: {'a' * 64}}}\n"
        + FIRE[FIRE.index("user:") :],
        "of a URL, http or https",
    ),
    "bad hash": (
        FIRE[: FIRE.index("stream:")]
        + "stream: {video: a.mp4, sha256: 12}\n"
        + FIRE[FIRE.index("user:") :],
        "sha256 is 12",
    ),
    "video and sample": (
        FIRE[: FIRE.index("stream:")]
        + "stream: {video: a.mp4, sample: coin}\n"
        + FIRE[FIRE.index("user:") :],
        "a video and a sample",
    ),
    "seen in a video": (
        FIRE[: FIRE.index("stream:")] + "stream: {video: a.mp4}\n" + FIRE[FIRE.index("user:") :],
        "a video has none",
    ),
    "no UTF-8": ("about: \udcff\n", "no UTF-8"),
    "deep nesting": ("[" * 3000, "no YAML|nested too deep"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, name: str) -> None:
    text, message = WRONG[name]
    path = tmp_path / "fire.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CaseError, match=message) as caught:
        read_case(path)
    told = str(caught.value)
    assert "\n" not in told and told.startswith("fire.yaml") and len(told) < 400


def test_files_and_folders_of_cases(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    made(tmp_path, name="b")
    made(tmp_path / "in", name="a")
    assert [case.id for case in read_cases([tmp_path])] == ["a", "b"]
    assert [path.name for path in case_files([tmp_path / "b.yaml"])] == ["b.yaml"]
    made(tmp_path / "in", name="b")
    with pytest.raises(CaseError, match="'b' is .*, too; rename one"):
        read_cases([tmp_path])
    with pytest.raises(CaseError, match="no such file or folder"):
        read_cases([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaseError, match="no case in it"):
        read_cases([tmp_path / "empty"])
    with pytest.raises(CaseError, match="can't be read"):
        read_case(tmp_path / "gone.yaml")
    big = tmp_path / "big.yaml"
    big.write_text("#" * (1 << 20) + "\n")
    with pytest.raises(CaseError, match="is it a case"):
        read_case(big)
