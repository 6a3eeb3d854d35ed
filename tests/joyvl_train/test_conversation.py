from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from joyvl_train.actions import CONTROL_TOKENS, Delegation, Response, Silence, parse_action
from joyvl_train.conversation import (
    assistant_text,
    clean,
    cut,
    messages,
    qa_messages,
    user_content,
)
from joyvl_train.stream import Turn

PIECES = ["<", "|", "</", "silence>", "im_end|>", " ", "\n", "[Background", "a", "1]", "\u2028"]
nasty = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=10).map("".join)


def safe(text: str) -> bool:
    markers = (*CONTROL_TOKENS, "<|", "<image>", "</")
    return not any(marker in text for marker in markers)


@given(nasty)
@example("</silence>")
@example("<<|image_pad|>")
@example("<\n|im_end|>")
@example("\n[Background 3] done")
def test_clean_text_never_holds_a_marker(text):
    cleaned = clean(text)
    assert safe(cleaned)
    assert not cleaned.startswith("[Background")
    assert len(cleaned.splitlines()) <= 1
    assert clean(cleaned) == cleaned
    cleaned.encode()


@given(st.text(st.characters(categories=("L", "N", "P")), max_size=40))
def test_ordinary_text_is_left_as_it_is(text):
    assert clean(text) == text or text.startswith("[Background")


@given(nasty, st.integers(2, 20))
@example("<<<", 4)
@example("a <b", 4)
def test_cut_text_stays_short_and_clean(text, chars):
    shown = cut(clean(text), chars)
    assert len(shown) <= chars
    assert clean(shown) == shown
    assert shown.endswith("…") or shown == clean(text)


def test_the_lines_of_a_user_turn():
    turn = Turn(7, ("f1", "f2"), ("How many?", "And </now>?"), ((1, "Three."), (2, "Four\nfive")))
    image = {"type": "image"}
    text = "[Background 1] Three.\n[Background 2] Four five\n"
    text += "How many? And < /now>?\n<7.0 seconds>\n"
    assert user_content(turn) == [{"type": "text", "text": text}, image, image]
    bare = user_content(Turn(12, ("f",)))
    assert bare == [{"type": "text", "text": "<12.0 seconds>\n"}, image]
    assert user_content(Turn(1, (), (" ",)))[0]["text"] == "<1.0 seconds>\n"


def test_a_chat_ends_with_an_open_turn_or_an_answer():
    said, kept = Turn(3, ("f",), action=Response("Stop!")), Turn(4, ("f",), action=Silence())
    chat = messages("", [said, kept, Turn(5, ("f",))])
    assert [m["role"] for m in chat] == ["user", "assistant", "user", "assistant", "user"]
    assert [m["content"] for m in chat[1::2]] == ["</response> Stop!", "</silence>"]
    assert messages("", [said, kept]) == chat[:4]


def test_an_open_turn_in_the_middle_is_an_error():
    with pytest.raises(ValueError, match="second 3 has no action, but second 4 follows"):
        messages("", [Turn(3, ("f",)), Turn(4, ("f",))])


@pytest.mark.parametrize(
    ("system", "memory", "content"),
    [("Watch.", "Said:\na", "Watch.\n\nSaid:\na"), ("", "m", "m"), ("s", "", "s"), ("", " ", None)],
)
def test_the_system_message_is_there_when_it_says_something(system, memory, content):
    chat = messages(memory, [], system)
    assert chat == ([] if content is None else [{"role": "system", "content": content}])


@given(nasty)
def test_what_the_assistant_said_comes_back_without_markers(text):
    try:
        action = Response(text)
    except ValueError:
        return
    again = parse_action(assistant_text(action))
    assert isinstance(again, Response)
    assert safe(again.text)


def test_a_delegation_is_written_with_clean_texts():
    action = Delegation("See <|im_end|>", "why <image>?")
    expected = "</response> See < |im_end|> </delegation> why < image>?"
    assert assistant_text(action) == expected


def test_a_turn_based_sample_has_no_time():
    context = "Seen:\n\na van\n[Background 2] 15 <x>"
    chat = qa_messages("What\nis it?", ["f1", "f2"], "A <b> car", context=context)
    system, user, assistant = chat
    assert system == {"role": "system", "content": "Seen:\na van"}
    text = "[Background 2] 15 < x>\nWhat is it?\n"
    assert user["content"][0] == {"type": "text", "text": text}
    assert user["content"][1:] == [{"type": "image"}] * 2
    assert assistant == {"role": "assistant", "content": "</response> A < b> car"}
    assert qa_messages("Why?", ["f"]) == [
        {"role": "user", "content": [{"type": "text", "text": "Why?\n"}, {"type": "image"}]}
    ]


@pytest.mark.parametrize(("question", "answer"), [(" ", "Yes"), ("Why?", " ")])
def test_a_turn_based_sample_needs_question_and_answer(question, answer):
    with pytest.raises(ValueError, match="empty"):
        qa_messages(question, [], answer)
