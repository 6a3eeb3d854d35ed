"""Plain questions: what a line claims, what is asked, and how words are counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.agents.agent import Unverified, Verdict
from data_pipeline.agents.asking import wait_for
from data_pipeline.agents.own_model import served
from data_pipeline.agents.plain import PLAIN, PlainAgent
from data_pipeline.agents.plain_looks import (
    FIELDS,
    FOLDER,
    Look,
    acknowledges,
    annotation_looks,
    answer_looks,
    line_looks,
    looks,
    wordings,
)
from data_pipeline.agents.prompts import PROMPTS, VERDICT
from joyvl_train.checkpoint import TinyShape, build_tiny, train_tokenizer
from joyvl_train.config import UserError
from joyvl_train.engine import Engine
from joyvl_train.rendering import Renderer
from tests.data_pipeline.agents.endpoint import Endpoint, client

PICTURES = [(second, Image.new("RGB", (96, 96), (20 * second, 0, 0))) for second in range(10)]


def short(found: tuple[Look, ...]) -> list[tuple[int, str, Any]]:
    return [(look.second, look.given[-1][1], look.wanted) for look in found]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A red car appeared.", [(7, "a red car", "yes"), (6, "a red car", "no")]),
        ("Some smoke appeared.", [(7, "some smoke", "yes"), (6, "some smoke", "no")]),
        ("The dog is there.", [(7, "a dog", "yes"), (6, "a dog", "no")]),
        ("The owl left.", [(7, "an owl", "no"), (6, "an owl", "yes")]),
        ("The lamp is on.", [(7, "on", "yes"), (6, "on", "no")]),
        ("I see a dog.", [(7, "a dog", "yes")]),
        ("A dog and a cat appeared.", []),
        ("3", []),
        ("Let me look that up.", []),
        ("Hello!", []),
        ("", []),
    ],
)
def test_what_a_line_claims(text: str, wanted: list[Any]) -> None:
    assert short(looks(text, 7)) == wanted
    assert short(looks(text, 7, begins=False)) == wanted[:1]


def test_nothing_lies_before_the_first_second() -> None:
    assert short(looks("A dog appeared.", 0)) == [(0, "a dog", "yes")]


@pytest.mark.parametrize(
    ("asked", "text", "wanted"),
    [
        ("Is there a dog now?", "Yes.", "yes"),
        ("What is in the picture now?", "A dog and a cat.", ("dog", "cat")),
        ("What colour is the car?", "Red.", ("red",)),
        ("Was there a dog earlier?", "Yes.", None),
        ("How many dogs have come so far?", "3", None),
        ("What comes next? Tell me when it does.", "A dog.", None),
        ("Hello.", "Hello!", None),
    ],
)
def test_questions_about_now_are_put_again(asked: str, text: str, wanted: Any) -> None:
    found = answer_looks(asked, text, 4)
    assert [look.wanted for look in found] == ([] if wanted is None else [wanted])
    lines = ["1 s: user: Tell me when a cow appears.", f"4 s: user: {asked}"]
    assert line_looks(4, text, lines) == found


def test_a_line_after_its_instruction_is_looked_at_by_its_own_words() -> None:
    lines = ["1 s: user: Is there a dog now?"]
    assert short(line_looks(4, "A cow appeared.", lines)) == short(looks("A cow appeared.", 4))


def test_what_came_slowly_is_looked_for_two_seconds_back() -> None:
    assert short(looks("A dog appeared.", 7, back=2))[1] == (5, "a dog", "no")
    assert len(looks("A dog appeared.", 1, back=2)) == 1


def test_bare_names_where_names_are_asked_for() -> None:
    found = [(7, "an apple", "yes"), (6, "an apple", "no")]
    assert short(line_looks(7, "Apple", ["1 s: user: Name each new thing."])) == found
    assert line_looks(7, "Apple", ["1 s: user: Tell me."]) == ()


def test_annotations_line_by_line() -> None:
    lines = [
        "before the video: 3 s: a cow appeared",
        "1 s: user: Tell me when a dog appears.",
        "5 s: assistant: A dog appeared.",
        "7 s, again every second until 9 s: assistant: The cow is there.",
    ]
    assert [look.second for look in annotation_looks(lines, 0, 9) or ()] == [5, 4, 7, 6]
    assert [look.second for look in annotation_looks(lines, 6, 9) or ()] == [7, 6]
    assert annotation_looks(lines, 8, 9) == ()
    assert annotation_looks([*lines, "8 s: assistant: 3"], 0, 9) is None


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_taken(asked: str, text: str) -> None:
    for found in (looks(text, 3), answer_looks(asked, text, 3)):
        assert all(look.second in (2, 3) for look in found)


def test_questions_are_files(tmp_path: Path) -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(FIELDS)
    assert all(len(wordings(kind)) >= 3 for kind in FIELDS)
    with pytest.raises(UserError, match=r"there\.md: the questions can't be read"):
        wordings("there", tmp_path)
    for text, wrong in (("Is $it there?", "must take the fields"), ("\n", "no question")):
        (tmp_path / "there.md").write_text(text)
        with pytest.raises(UserError, match=wrong):
            wordings("there", tmp_path)


class Plain:
    """A plain agent whose model says what `script` makes of its question."""

    def __init__(self, name: str, script: Callable[[str], Any], **settings: Any) -> None:
        self.endpoint = Endpoint(lambda request, _: script(self.question(request)))
        self.endpoint.__enter__()
        self.client = client(self.endpoint, **settings.pop("client", {}))
        self.agent = PlainAgent(name, self.client, **settings)

    @staticmethod
    def question(request: dict[str, Any]) -> str:
        assert "response_format" not in request
        (message,) = request["messages"]
        assert [part["type"] for part in message["content"]] == ["text", "image_url"]
        text: str = message["content"][0]["text"]
        return text

    def judge(self, fields: dict[str, Any]) -> Verdict:
        return wait_for(self.agent.judge(fields, PICTURES[:6]))

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        wait_for(self.client.close())
        self.endpoint.__exit__()


TARGET = {"target": "a dog"}


def test_yes_and_no_are_words() -> None:
    for said, yes in (("Yes.", True), ("yes, it is", True), ("No.", False)):
        with Plain("dense_precheck", lambda question, said=said: said) as plain:
            assert plain.judge(TARGET).yes is yes
            questions = {Plain.question(request) for request in plain.endpoint.seen}
        assert len(questions) == len(wordings("there"))
        assert all("a dog" in question and '"' not in question for question in questions)


def test_most_answers_decide() -> None:
    def two_of_five(question: str) -> str:
        return "Yes." if question.startswith(("Is", "Can")) else "No."

    for least, yes in ((0.6, True), (0.7, False)):
        with Plain("dense_precheck", two_of_five, least=least) as plain:
            assert plain.judge(TARGET).yes is yes


def test_what_is_no_answer_counts_for_nothing() -> None:
    def one(question: str) -> str:
        return "Yes." if question.startswith("Is there") else "A dog. Or so."

    with Plain("dense_precheck", one, least=1.0) as plain:
        assert plain.judge(TARGET).yes
    garbage = Plain("dense_precheck", lambda question: "A dog. Or so.")
    with garbage as plain, pytest.raises(Unverified) as caught:
        plain.judge(TARGET)
    assert caught.value.reason == "unparsed" and caught.value.agent == plain.agent.key


def test_what_is_there_may_be_asked_for_its_name() -> None:
    for said, yes in (
        ("A red dog and a cat.", True),
        ("A cat.", False),
        ("Nothing.", False),
        ("A hot dog.", True),  # the words are there
    ):
        with Plain("dense_precheck", lambda question, said=said: said, names=True) as plain:
            assert plain.judge(TARGET).yes is yes


def local(second: int, text: str, *asked: str) -> dict[str, Any]:
    return {"second": second, "text": text, "instruction": list(asked), "earlier": []}


def test_a_line_that_comes_too_late_was_true_before() -> None:
    with Plain("local_verifier", lambda question: "Yes.") as plain:
        verdict = plain.judge(local(5, "A dog appeared.", "0 s: user: Tell me."))
        assert not verdict.yes and "second 4: a dog: no" in verdict.reason
    with Plain("local_verifier", lambda question: "Yes.", least_before=0) as plain:
        assert plain.judge(local(5, "A dog appeared.", "0 s: user: Tell me.")).yes


def test_the_users_own_question_is_put_again() -> None:
    with Plain("local_verifier", lambda question: "It is red.") as plain:
        asked = "5 s: user: What colour is the car?"
        assert plain.judge(local(5, "Red.", asked)).yes
        assert not plain.judge(local(5, "Blue.", asked)).yes
        assert {Plain.question(r) for r in plain.endpoint.seen} == {"What colour is the car?"}


def test_a_line_that_no_question_fits_is_unsure() -> None:
    with Plain("local_verifier", lambda question: "Yes.") as plain:
        with pytest.raises(Unverified) as caught:
            plain.judge(local(5, "3", "0 s: user: Count the dogs."))
        # Nor is a line right of which no picture is shown.
        with pytest.raises(Unverified, match="no picture of second 9"):
            plain.judge(local(9, "A dog appeared."))
    assert caught.value.reason == "unsure"


def test_whole_annotations() -> None:
    lines = ["0 s: user: Tell me.", "4 s: assistant: A dog appeared."]
    fields = {"seconds": 6, "start": 0, "stop": 5, "annotation": lines}
    with Plain("global_verifier", lambda question: "Yes.", least_before=0) as plain:
        assert plain.judge(fields).yes
        assert plain.judge(fields | {"annotation": []}).yes


def test_a_failing_endpoint_leaves_it_unverified() -> None:
    failing = Plain("dense_precheck", lambda question: (500, {}), client={"retries": 0})
    with failing as plain, pytest.raises(Unverified) as caught:
        plain.judge(TARGET)
    assert caught.value.reason == "agent failed" and plain.agent.counts()["failed"] == 1


def test_settings_are_checked_and_stand_in_the_key() -> None:
    with Plain("dense_precheck", str) as plain:
        keys = {
            PlainAgent("dense_precheck", plain.client, **settings).key
            for settings in (
                {},
                {"names": True},
                {"least": 0.6},
                {"least_before": 0.2},
                {"back": 2},
            )
        }
        assert len(keys) == 5 and all(key.startswith("plain_dense_precheck@") for key in keys)
        with pytest.raises(UserError, match="'planner' can't be asked plainly"):
            PlainAgent("planner", plain.client)
        with pytest.raises(ValueError, match="least"):
            PlainAgent("dense_precheck", plain.client, least=2.0)
    assert all(PROMPTS[name].schema == VERDICT for name in PLAIN)


def test_our_own_engine_over_http(one_thread: None) -> None:
    """A random model answers over HTTP; what it says is no yes and no no."""
    shape = TinyShape(
        vocabulary=400, hidden=32, layers=1, heads=2, kv_heads=1, feed_forward=48,
        vision_hidden=32, vision_layers=1, vision_heads=2, vision_feed_forward=32,
        deepstack=(0,), side=64, positions=512,
    )  # fmt: skip
    model, processor = build_tiny(train_tokenizer(["what is it"] * 3, 400), shape, 0)
    with served(Engine(model.eval(), Renderer(processor), max_new_tokens=8)) as endpoint:
        asked = client(endpoint.url, endpoint.model)
        agent = PlainAgent("dense_precheck", asked, max_tokens=8)
        with pytest.raises(Unverified) as caught:
            wait_for(agent.judge(TARGET, PICTURES[:1]))
        wait_for(asked.close())
    assert caught.value.reason == "unparsed"
    assert agent.counts()["calls"] == len(wordings("there"))


def test_what_only_takes_note_claims_nothing() -> None:
    assert acknowledges("Okay.") and acknowledges(" sure ") and not acknowledges("Okay, a dog.")
    lines = ["3 s: user: Stop now.", "3 s: assistant: Okay.", "5 s: assistant: A dog appeared."]
    found = annotation_looks(lines, 0, 9)
    assert found is not None and {look.second for look in found} == {5, 4}


def test_what_is_said_again_need_not_have_begun_just_now() -> None:
    once = line_looks(7, "The dog is there.", [])
    again = line_looks(7, "The dog is there.", [], begins=False)
    assert [look.second for look in once] == [7, 6] and [look.second for look in again] == [7]


def test_several_seconds_before_an_onset_can_be_looked_at() -> None:
    assert [k.second for k in looks("A dog appeared.", 7, back=1, over=3)] == [7, 6, 5, 4]
    assert [k.second for k in looks("A dog appeared.", 2, back=1, over=3)] == [2, 1, 0]
    assert [k.second for k in looks("The moon appeared.", 0)] == [0]
