from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyvl_train.actions import (
    ActionFormatError,
    Delegation,
    Response,
    Silence,
    fold,
    format_action,
    parse_action,
    spoken,
)


def speakable(text: str) -> bool:
    try:
        Response(text)
    except ActionFormatError:
        return False
    return True


words = st.text(max_size=30).map(fold).filter(speakable)
all_actions = st.one_of(
    st.just(Silence()), st.builds(Response, words), st.builds(Delegation, words, words)
)


@given(all_actions)
def test_what_is_formatted_is_parsed_back(action):
    assert parse_action(format_action(action)) == action


@given(
    st.lists(
        st.sampled_from(
            ["</silence>", "</response>", "</delegation>", " ", "a", "\n", "<", "hm", "\u2028"]
        ),
        max_size=7,
    ).map("".join)
)
def test_only_what_can_be_formatted_is_parsed(text):
    try:
        action = parse_action(text)
    except ActionFormatError as error:
        assert error.text == text
        assert error.reason
    else:
        assert format_action(action) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("</silence> oh", "text after silence"),
        ("</silence></silence>", "text after silence"),
        ("</silence> ", "text after silence"),
        ("Stop!", "no control token first"),
        (" </silence>", "no control token first"),
        ("</delegation> why?", "no control token first"),
        ("</response>", "empty response"),
        ("</response> ", "empty response"),
        ("</response>Stop!", "no space after response token"),
        ("</response>  Stop!", "stray space around response"),
        ("</response> Stop! ", "stray space around response"),
        ("</response> one\ntwo", "line break in response"),
        ("</response> one\u2028two", "line break in response"),
        ("</response> one </response> two", "control token in response"),
        ("</response> one</silence>", "control token in response"),
        ("</response> Wait.</delegation> why?", "no space around delegation token"),
        ("</response> Wait. </delegation>why?", "no space around delegation token"),
        ("</response> Wait. </delegation>", "no space around delegation token"),
        ("</response> Wait. </delegation> ", "empty question"),
        ("</response>  </delegation> why?", "empty note"),
        ("</response> Wait.  </delegation> why?", "stray space around note"),
        ("</response> Wait. </delegation>  why?", "stray space around question"),
        ("</response> a </delegation> b </delegation> c", "control token in question"),
        ("</response> a </response> b </delegation> c", "control token in note"),
        ("</response> a\nb </delegation> c", "line break in note"),
        ("</response> a </delegation> b\rc", "line break in question"),
    ],
)
def test_what_is_outside_the_grammar_is_named(text, reason):
    with pytest.raises(ActionFormatError) as caught:
        parse_action(text)
    assert caught.value.reason == reason
    assert caught.value.text == text


def test_users_are_shown_the_note_and_not_the_question():
    assert spoken(Silence()) is None
    assert spoken(Response("Stop!")) == "Stop!"
    assert spoken(Delegation("Let me check.", "How many?")) == "Let me check."


@given(st.text())
def test_fold_leaves_one_line(text):
    folded = fold(text)
    assert len(folded.splitlines()) <= 1
    assert fold(folded) == folded == folded.strip()


def test_the_contract_needs_the_standard_library_only():
    code = (
        "import sys; before = set(sys.modules)\n"
        "import joyvl_train.actions, joyvl_train.timeline\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "extra = new - set(sys.stdlib_module_names) - {'joyvl_train'}\n"
        "assert not extra, extra"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
