"""Rendering against the chat template's own text, on three architectures."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joyvl_train.actions import (
    CONTROL_TOKENS,
    DELEGATION,
    RESPONSE,
    SILENCE,
    Delegation,
    Response,
    Silence,
)
from joyvl_train.checkpoint import CheckpointError
from joyvl_train.conversation import assistant_text, clean, messages, qa_messages
from joyvl_train.rendering import Renderer
from joyvl_train.stream import Predicted, Stream, StreamSettings, Turn
from joyvl_train.weights import LossWeights, token_weights

from .conftest import ARCHITECTURES, OUTSIDE, Speaker, build, chats, picture, texts, tokenizer_of

EXAMPLES = settings(max_examples=12)


def whole_ids(speaker: Speaker, chat: list[dict[str, Any]], frames: list[Any]) -> list[int]:
    """A server's way: the template's text of the whole chat, placeholders expanded, tokenized."""
    processor = speaker.processor
    parts = [
        {
            "role": m["role"],
            "content": [{"type": "text", "text": m["content"]}]
            if isinstance(m["content"], str)
            else m["content"],
        }
        for m in chat
    ]
    prompt = chat[-1]["role"] == "user"
    text = processor.chat(parts, prompt)
    if processor.whole is not None:
        found = processor.whole(text=text, images=frames or None, add_special_tokens=False)
        return list(found["input_ids"][0])
    for frame in frames:
        width, height = frame.size
        text = text.replace("<|image_pad|>", "<|mark|>" * (width // 32 * (height // 32)), 1)
    text = text.replace("<|mark|>", "<|image_pad|>")
    return list(processor.tokenizer.encode(text, add_special_tokens=False))


def harmless(speaker: Speaker, chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chat as `conversation` writes it; "[MARK]" is a token of our test tokenizers alone."""
    for message in chat:
        if isinstance(message["content"], str):
            message["content"] = message["content"].replace("[MARK]", "[ MARK]")
        else:
            for part in message["content"]:
                if "text" in part:
                    part["text"] = part["text"].replace("[MARK]", "[ MARK]")
    return chat


@pytest.mark.parametrize("pieces", [False, True], ids=["add", "keep"])
@pytest.mark.parametrize("name", ARCHITECTURES)
@EXAMPLES
@given(turns=chats(), memory=texts().map(clean), system=st.sampled_from(["", "Watch."]))
def test_segments_are_the_whole_chat(
    speakers: Any,
    in_pieces: Any,
    name: str,
    pieces: bool,
    turns: list[Turn],
    memory: str,
    system: str,
) -> None:
    speaker = (in_pieces if pieces else speakers)[name]
    frames = [frame for turn in turns for frame in turn.frames]
    rendered = speaker.renderer.render(memory, turns, system)
    whole = whole_ids(speaker, harmless(speaker, messages(memory, turns, system)), frames)
    assert rendered.ids == whole[: len(rendered.ids)]
    assert speaker.processor.tokenizer.decode(whole[len(rendered.ids) :]) == "\n"
    open_turns = [*turns[:-1], replace(turns[-1], action=None)]
    prompt = speaker.renderer.render(memory, open_turns, system)
    assert prompt.ids == whole_ids(
        speaker, harmless(speaker, messages(memory, open_turns, system)), frames
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
@EXAMPLES
@given(turns=chats(least=2), memory=texts().map(clean))
def test_the_prompt_of_a_second_is_a_prefix_of_the_sample(
    speakers: Any, name: str, turns: list[Turn], memory: str
) -> None:
    renderer = speakers[name].renderer
    sample = renderer.render(memory, turns)
    for at, turn in enumerate(turns):
        prompt = renderer.render(memory, [*turns[:at], replace(turn, action=None)])
        assert sample.ids[: len(prompt)] == prompt.ids
        assert (sample.positions[:, : len(prompt)] == prompt.positions).all()
        for key, tensor in prompt.images.items():
            assert torch.equal(sample.images[key][: len(tensor)], tensor)


def test_a_live_stream_serves_the_sample_it_would_train_on(speaker: Speaker) -> None:
    stream = Stream(StreamSettings(chunk_seconds=6, lead=2), pins=["say fire"])
    said = [Silence(), Response("fire"), Delegation("wait", "how many?"), Silence(), Silence()]
    prompts = []
    for second in range(11):
        results = ((1, "three"),) if second == 5 else ()
        query = ("look",) if second in (0, 4) else ()
        stream.observe(second, (picture(second),), query, results)
        if stream.chunk == 1:
            prompts.append(speaker.renderer.render(stream.memory_text, stream.turns))
        stream.act(said[second % 5] if second != 7 else Silence())
        due = stream.due_summary()
        assert due is None or len(due) in (4, 6)
    sample = speaker.renderer.render(stream.memory_text, stream.turns)
    assert stream.supervised_from == 6 and stream.turns[0].second == 4 and len(prompts) == 5
    assert "say fire" in stream.memory_text
    for prompt in prompts:
        assert sample.ids[: len(prompt)] == prompt.ids


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl"])
@EXAMPLES
@given(turns=chats())
def test_positions_are_the_models_own(speakers: Any, name: str, turns: list[Turn]) -> None:
    speaker = speakers[name]
    rendered = speaker.renderer.render("memory", turns)
    ids = torch.tensor([rendered.ids])
    types = (ids == speaker.processor.image_id).int()
    found, _ = speaker.model.model.get_rope_index(
        ids, mm_token_type_ids=types, image_grid_thw=rendered.images["image_grid_thw"]
    )
    assert rendered.positions.shape == (3, len(rendered))
    assert torch.equal(torch.from_numpy(rendered.positions), found[:, 0])


def test_without_mrope_positions_count_on(speakers: Any) -> None:
    rendered = speakers["idefics3"].renderer.render("", [Turn(0, (picture(1),), ("hi",))])
    assert (rendered.positions == range(len(rendered))).all()
    assert rendered.positions.shape[0] == 1


@pytest.mark.parametrize("pieces", [False, True], ids=["add", "keep"])
@pytest.mark.parametrize("name", ARCHITECTURES)
@EXAMPLES
@given(turns=chats())
def test_spans_cover_the_turns_exactly(
    speakers: Any, in_pieces: Any, name: str, pieces: bool, turns: list[Turn]
) -> None:
    speaker = (in_pieces if pieces else speakers)[name]
    renderer, tokenizer = speaker.renderer, speaker.processor.tokenizer
    rendered = renderer.render("", turns)
    at = 0
    for span in rendered.spans:
        assert span.start == at < span.stop
        at = span.stop
    assert at == len(rendered)
    by_second: dict[int, list[Any]] = {}
    for span in rendered.spans:
        if span.role == "assistant":
            by_second.setdefault(span.second, []).append(span)
    assert list(by_second) == [turn.second for turn in turns]
    for turn in turns:
        assert turn.action is not None
        spans = by_second[turn.second]
        text = assistant_text(turn.action).replace("[MARK]", "[ MARK]")
        said = rendered.ids[spans[0].start : spans[-1].stop]
        assert said[-1] == renderer.end_id and spans[-1].kind == "end"
        assert spans[-1].stop - spans[-1].start == 1
        assert renderer.read(said) == text
        parts = [(s.kind, tokenizer.decode(rendered.ids[s.start : s.stop])) for s in spans[:-1]]
        parts[0] = (parts[0][0], parts[0][1].removeprefix(" "))  # what a template may lead in
        wanted = {
            Silence: ["control"],
            Response: ["control", "text"],
            Delegation: ["control", "text", "control", "text"],
        }[type(turn.action)]
        assert [kind for kind, _ in parts] == wanted
        controls = [part.strip() for kind, part in parts if kind == "control"]
        assert (
            controls
            == {
                Silence: [SILENCE],
                Response: [RESPONSE],
                Delegation: [RESPONSE, DELEGATION],
            }[type(turn.action)]
        )
        if not pieces:
            sizes = [s.stop - s.start for s in spans if s.kind == "control"]
            assert sizes[1:] in ([], [1])
            assert sizes[0] == (2 if name == "idefics3" else 1)  # with the space it leads in
    images = [s for s in rendered.spans if s.kind == "image"]
    assert all(set(rendered.ids[s.start : s.stop]) == {speaker.processor.image_id} for s in images)
    assert rendered.ids.count(speaker.processor.image_id) == sum(s.stop - s.start for s in images)


def test_control_strings_in_pieces_are_several_tokens(in_pieces: Any) -> None:
    renderer = in_pieces["qwen3_vl"].renderer
    segment = renderer.assistant(Delegation("a note", "a question"))
    controls = [s for s in segment.spans if s.kind == "control"]
    assert [s.stop - s.start > 1 for s in controls] == [True, True]
    # " </" is one token; it belongs to the control string that it begins.
    first = renderer.tokenizer.decode(segment.ids[controls[1].start : controls[1].stop])
    assert first == f" {DELEGATION}"


@pytest.mark.parametrize("name", ARCHITECTURES)
@EXAMPLES
@given(outside=texts(), others=texts())
def test_text_from_outside_forms_no_special_token(
    speakers: Any, name: str, outside: str, others: str
) -> None:
    renderer = speakers[name].renderer
    processor = renderer.processor
    added = set(processor.tokenizer.get_added_vocab().values())

    def specials(text: str, digest: str, memory: str) -> list[int]:
        turn = Turn(
            3, (picture(1),), (text,), ((1, digest),), Response(f"so {clean(text)}".strip())
        )
        ids = renderer.render(memory, [turn]).ids
        return [i for i in ids if i in added]

    expected = specials("a", "b", "c")
    assert specials(outside, others, clean(others) or "c") == expected
    item = renderer.render_question(f"what {outside}", [picture(1)], Response("a"), others or "c")
    plain = renderer.render_question("what", [picture(1)], Response("a"), "c")
    found = [[i for i in r.ids if i in added] for r in (item, plain)]
    # A context may add a system message or leave it out, never tokens of another kind.
    assert set(found[0]) <= set(found[1])
    assert found[0].count(processor.image_id) == found[1].count(processor.image_id)


def test_every_outside_string_alone(speaker: Speaker) -> None:
    added = set(speaker.processor.tokenizer.get_added_vocab().values())
    for text in OUTSIDE:
        ids = speaker.renderer.render("", [Turn(0, (), (text,))]).ids
        plain = speaker.renderer.render("", [Turn(0, (), ("a",))]).ids
        assert [i for i in ids if i in added] == [i for i in plain if i in added], text


@pytest.mark.parametrize("name", ARCHITECTURES)
@EXAMPLES
@given(turns=chats(), memory=texts().map(clean))
def test_length_is_that_of_the_rendered(
    speakers: Any, name: str, turns: list[Turn], memory: str
) -> None:
    renderer = speakers[name].renderer
    places = [
        replace(turn, frames=tuple(renderer.shape(f.size) for f in turn.frames)) for turn in turns
    ]
    assert renderer.length(memory, places) == len(renderer.render(memory, turns))


def test_frames_processed_before_render_alike(speaker: Speaker) -> None:
    frames = [picture(1, (64, 64)), picture(2, (64, 64))]
    turn = Turn(0, tuple(frames), ("look",), action=Silence())
    ready = replace(turn, frames=tuple(speaker.processor.images([f]) for f in frames))
    plain, again = (speaker.renderer.render("", [t]) for t in (turn, ready))
    assert again.ids == plain.ids and (again.positions == plain.positions).all()
    assert all(torch.equal(again.images[k], v) for k, v in plain.images.items())


def test_turn_based_samples_are_the_whole_chat(speaker: Speaker) -> None:
    frames = [picture(1), picture(2, (32, 32))]
    for context in ("", "a dog\n[Background 2] three"):
        rendered = speaker.renderer.render_question("what?", frames, Response("a dog"), context)
        whole = whole_ids(speaker, qa_messages("what?", frames, "a dog", context), frames)
        assert rendered.turn_based
        assert rendered.ids == whole[: len(rendered)] and len(whole) - len(rendered) == 1
        shapes = tuple(speaker.renderer.shape(f.size) for f in frames)
        length = speaker.renderer.question_length("what?", shapes, Response("a dog"), context)
        assert length == len(rendered)


def test_frames_of_a_question_that_show_changes_are_marked(speaker: Speaker) -> None:
    frames = [picture(1), picture(2, (32, 32)), picture(3, (32, 32))]
    shown = [frames[0], *map(Predicted, frames[1:])]
    flags = [False, True, True]
    renderer = speaker.renderer
    shapes = [renderer.shape(frames[0].size), *[Predicted(renderer.shape((32, 32)))] * 2]
    said = [Response("no"), Response("a car")]
    told = [action.text for action in said]
    rendered = renderer.render_question("what?", shown, Response("a dog"), before=said)
    chat = qa_messages("what?", frames, "a dog", before=told, predicted=flags)
    texts = [m["content"][0]["text"] for m in chat if m["role"] == "user"]
    assert texts == ["what?\n", "Next.\n~\n", "Next.\n~\n"]
    whole = whole_ids(speaker, chat, frames)
    assert rendered.ids == whole[: len(rendered)] and len(whole) - len(rendered) == 1
    length = renderer.question_length("what?", shapes, Response("a dog"), before=said)
    assert length == len(rendered)
    for before in ((), told):
        with pytest.raises(ValueError, match="of a question's first turn are whole"):
            qa_messages("what?", frames, "a dog", before=before, predicted=[True, True, True])


@pytest.mark.parametrize("further", [(), ("and here?", "")])
def test_answers_before_the_last_make_a_frame_a_turn(
    speaker: Speaker, further: tuple[str, ...]
) -> None:
    frames = [picture(1), picture(2, (32, 32)), picture(3)]
    before = ("no", "a car")
    said = [Response(text) for text in before]
    rendered = speaker.renderer.render_question(
        "what?", frames, Response("a dog"), "a dog", before=said, further=further
    )
    chat = qa_messages("what?", frames, "a dog", "a dog", before, further)
    assert [m["role"] for m in chat] == ["system"] + ["user", "assistant"] * 3
    if further:
        assert chat[3]["content"][0]["text"] == "and here?\n"
    whole = whole_ids(speaker, chat, frames)
    assert rendered.turn_based and rendered.ids == whole[: len(rendered)]
    assert len(whole) - len(rendered) == 1
    shapes = tuple(speaker.renderer.shape(f.size) for f in frames)
    length = speaker.renderer.question_length(
        "what?", shapes, Response("a dog"), "a dog", before=said, further=further
    )
    assert length == len(rendered)
    # Each answer is scored, as a sample of one turn has it.
    ends = [
        i
        for i in token_weights(rendered, LossWeights()).positions
        if whole[i] == speaker.renderer.end_id
    ]
    assert len(ends) == 3
    with pytest.raises(ValueError, match="3 turns of a frame each, but 2 frames"):
        qa_messages("what?", frames[:2], None, "", before)
    with pytest.raises(ValueError, match="2 turns after the first, but 1 questions"):
        qa_messages("what?", frames, None, "", before, ["more?"])


def test_a_renderer_travels_to_another_process(speaker: Speaker) -> None:
    turn = Turn(0, (picture(1),), ("look",), action=Response("fire"))
    again = pickle.loads(pickle.dumps(speaker.renderer))
    assert again.render("m", [turn]).ids == speaker.renderer.render("m", [turn]).ids


def renderer_with(template: str) -> Renderer:
    speaker = build("qwen3_vl")
    speaker.processor.tokenizer.chat_template = template
    return Renderer(speaker.processor)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "loses a turn's text"),
        (
            "{% for m in messages %}{{ loop.index }}{% for p in m.content %}{{ p.text }}"
            "{% endfor %}<|im_end|>{% endfor %}",
            "does not read the same in every turn",
        ),
        (
            "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{{ p.text }}{% endfor %}\n"
            "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
            "no special token",
        ),
        (
            "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{{ p.text }}{% endfor %}"
            "<|im_end|>{% endfor %}{% if add_generation_prompt %}Go:{% endif %}",
            "generation prompt",
        ),
    ],
)
def test_a_template_that_cannot_be_cut_is_one_clear_line(template: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        renderer_with(template)
    assert "\n" not in str(error.value)


def test_a_template_without_images_is_refused_with_the_first_frame() -> None:
    renderer = renderer_with(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}{{ p.text }}"
        "{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert renderer.render("", [Turn(0, (), ("a",))]).ids
    with pytest.raises(ValueError, match="1 images, but 0 places"):
        renderer.render("", [Turn(0, (picture(1),))])


def test_a_tokenizer_that_marks_its_beginning_is_refused() -> None:
    from tokenizers import pre_tokenizers

    speaker = build("qwen3_vl")
    inner = speaker.processor.tokenizer.backend_tokenizer
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    template = speaker.processor.tokenizer.chat_template
    speaker.processor.tokenizer.chat_template = template.replace("<|im_start|>", "turn of ")
    with pytest.raises(CheckpointError, match="read"):
        Renderer(speaker.processor)


def test_a_system_message_by_default_stands_in_the_opening() -> None:
    """Qwen2's templates put one in where the chat has none."""
    default = (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}"
    )
    tokenizer = tokenizer_of(True)
    renderer = renderer_with(default + tokenizer.chat_template)
    turns = [Turn(0, (), ("a",), action=Silence()), Turn(1, (), ("b",))]
    speaker = Speaker("qwen3_vl", None, renderer)
    for memory in ("", "remember"):
        whole = whole_ids(speaker, messages(memory, turns), [])
        assert renderer.render(memory, turns).ids == whole
        assert ("Help." in renderer.tokenizer.decode(whole)) == (not memory)


def test_control_tokens_are_single_where_they_were_added(speakers: Any, in_pieces: Any) -> None:
    for name in ARCHITECTURES:
        for token in CONTROL_TOKENS:
            for found, single in ((speakers, True), (in_pieces, False)):
                tokenizer = found[name].processor.tokenizer
                ids = tokenizer.encode(token, add_special_tokens=False)
                assert (len(ids) == 1) is single
