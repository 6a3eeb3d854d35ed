"""The engine against `generate` on the full prompt, on small random models with lively outputs."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import (
    PreTrainedTokenizerFast,
)

from joyvl_train.actions import (
    RESPONSE,
    SILENCE,
    Delegation,
    Response,
    Silence,
)
from joyvl_train.checkpoint import build_tiny, train_tokenizer
from joyvl_train.engine import Engine
from joyvl_train.rendering import Renderer, Segment
from joyvl_train.sampling import Draw, Sampling, choose
from joyvl_train.stream import Stream, Turn
from joyvl_train.vision_features import Images, VisionFeatures

from .conftest import build
from .lively import SHAPE, WORDS, drive, enliven, full_generate, model_inputs, picture

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(WORDS * 3, SHAPE.vocabulary)


@pytest.fixture(scope="module")
def qwen3(tokenizer: Any) -> tuple[Any, Renderer]:
    model, processor = build_tiny(tokenizer, SHAPE, 0)
    renderer = Renderer(processor)
    return enliven(model, renderer), renderer


def test_one_stream_says_what_generate_says(qwen3: Any) -> None:
    replies, _ = drive(*qwen3, streams=1, seconds=25, seed=1)
    assert len({reply.tokens for reply in replies}) > 3


def test_ragged_batch_says_what_generate_says(qwen3: Any) -> None:
    replies, engine = drive(*qwen3, streams=5, seconds=22, seed=2)
    kinds = {type(reply.action) for reply in replies}
    # The test is worth something only where all of this occurred.
    assert Silence in kinds and Response in kinds and type(None) in kinds
    assert any(reply.truncated for reply in replies)
    assert engine.forwards < 12 * 22


def test_without_increments_the_same(qwen3: Any) -> None:
    step_by_step, _ = drive(*qwen3, streams=2, seconds=9, seed=3)
    whole, engine = drive(*qwen3, streams=2, seconds=9, seed=3, incremental=False)
    assert [r.tokens for r in whole] == [r.tokens for r in step_by_step]
    assert [r.prompt_tokens for r in whole] == [r.prompt_tokens for r in step_by_step]
    assert engine.forwards == 0


@pytest.mark.parametrize("name", ["qwen2_5_vl", "idefics3"])
def test_other_architectures_through_the_same_code(name: str) -> None:
    other = build(name)
    model, renderer = enliven(other.model, other.renderer, steps=30), other.renderer
    replies, engine = drive(model, renderer, streams=3, seconds=12, seed=2)
    assert engine.incremental and engine.forwards > 0
    assert len({reply.tokens for reply in replies}) > 2
    whole, _ = drive(model, renderer, streams=3, seconds=4, seed=2, incremental=False)
    assert [r.tokens for r in whole] == [r.tokens for r in replies[: len(whole)]]


def test_what_attends_otherwise_generates_from_the_whole_prompt(qwen3: Any) -> None:
    model, renderer = qwen3
    assert Engine(model, renderer).incremental
    text = model.config.get_text_config()
    text.layer_types = ["sliding_attention", *["full_attention"] * (SHAPE.layers - 1)]
    try:
        assert not Engine(model, renderer).incremental
    finally:
        del text.layer_types


def test_how_rows_are_batched_changes_nothing(qwen3: Any) -> None:
    plain, _ = drive(*qwen3, streams=3, seconds=10, seed=4, check=False)
    model, renderer = qwen3
    assert renderer.read(Engine(model, renderer)._silence) == SILENCE
    other, _ = drive(model, renderer, streams=3, seconds=10, seed=4, check=False, batch_tokens=1)
    assert [r.tokens for r in other] == [r.tokens for r in plain]


def test_a_silent_second_costs_one_forward(qwen3: Any) -> None:
    model, renderer = qwen3
    engine = Engine(model, renderer)
    stream = Stream()
    handle = engine.open(stream)
    rng = random.Random(0)
    spent = []
    for second in range(12):
        stream.observe(second, [picture(rng)])
        before = engine.forwards, engine.encoded_tokens
        (reply,) = engine.step([handle])
        stream.act(Silence())
        if reply.action == Silence() and second:
            spent.append(engine.forwards - before[0])
            assert engine.encoded_tokens - before[1] < 60  # the new second, not the history
    assert len(spent) > 4 and set(spent) == {1}
    assert engine.vision.encoded == 12


def test_positions_are_those_of_the_whole_prompt(qwen3: Any) -> None:
    model, renderer = qwen3
    stream = Stream()
    rng = random.Random(5)
    for second in range(4):
        stream.observe(second, [picture(rng), picture(rng)], ["fire now"])
        stream.act(Response("fire now"))
    sample = renderer.render("a memory", stream.turns)
    ids = torch.tensor([sample.ids])
    types = (ids == renderer.processor.image_id).int()
    expected, _ = model.model.get_rope_index(ids, types, sample.images["image_grid_thw"])
    assert torch.equal(torch.from_numpy(sample.positions), expected[:, 0])


def sampled(model: Any, renderer: Renderer, chosen: list[int], **settings: Any) -> dict[int, Any]:
    """Streams `chosen` of a fixed set, driven together; the token ids of each."""
    engine = Engine(model, renderer, max_new_tokens=6, temperature=1.3, **settings)
    streams = {i: Stream() for i in chosen}
    handles = {i: engine.open(streams[i], seed=i) for i in chosen}
    said: dict[int, Any] = {i: [] for i in chosen}
    for second in range(6):
        for i in chosen:
            streams[i].observe(second, [picture(random.Random(100 * second))])
        for i, reply in zip(chosen, engine.step(list(handles.values())), strict=True):
            said[i].append(reply.tokens)
            streams[i].act(reply.action or Silence())
    return said


def test_draws_do_not_depend_on_the_batch(qwen3: Any) -> None:
    together = sampled(*qwen3, chosen=[0, 1, 2, 3], seed=7)
    assert sampled(*qwen3, chosen=[2], seed=7)[2] == together[2]
    assert sampled(*qwen3, chosen=[3, 1], seed=7)[1] == together[1]
    assert len({str(said) for said in together.values()}) > 1  # each draws its own
    assert sampled(*qwen3, chosen=[0, 1, 2, 3], seed=8) != together


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(4000, 1)
    for top_p, expected in ((1.0, [0.644, 0.237, 0.087, 0.032]), (0.7, [0.731, 0.269, 0, 0])):
        draws = [
            Draw(Sampling(temperature=1.0, top_p=top_p), torch.Generator().manual_seed(i))
            for i in range(len(logits))
        ]
        tokens = torch.tensor(choose(logits, draws, frozenset({3}), details=True))
        shares = torch.bincount(tokens, minlength=4) / len(tokens)
        assert torch.allclose(shares, torch.tensor(expected), atol=0.03)
        assert [d.ended for d in draws] == (tokens == 3).tolist()
        first = draws[0]
        assert first.logprobs[0] == pytest.approx(logits[0].log_softmax(-1)[tokens[0]].item())


@pytest.mark.parametrize("incremental", [True, False])
def test_replies_to_questions_tell_the_length_of_their_prompts(
    qwen3: Any, incremental: bool
) -> None:
    model, renderer = qwen3
    engine = Engine(model, renderer, max_new_tokens=2, incremental=incremental)
    prompts = [renderer.render_question(text, []) for text in ("fire", "fire now or wait")]
    replies = engine.generate_batch(prompts)
    assert [reply.prompt_tokens for reply in replies] == [len(prompt.ids) for prompt in prompts]


def test_fork_goes_on_from_what_is_encoded(qwen3: Any) -> None:
    model, renderer = qwen3
    engine = Engine(model, renderer, max_new_tokens=8)
    stream = Stream()
    rng = random.Random(6)
    handle = engine.open(stream)
    for second in range(3):
        stream.observe(second, [picture(rng)], ["fire now"])
        [told] = engine.step([handle])
        stream.act(Response("wait"))
    forks = [engine.fork(handle) for _ in range(3)]
    frames = (picture(rng), picture(rng))
    before = engine.encoded_tokens
    for each in (handle, *forks):
        engine.stream(each).observe(3, frames, ["seconds"])
    replies = engine.step([handle, *forks])
    # Each reads its own second, and nothing of those before it.
    most = replies[0].prompt_tokens - told.prompt_tokens + engine.sampling.max_new_tokens
    assert engine.encoded_tokens - before <= 4 * (most + len(engine._silence))
    assert len({reply.tokens for reply in replies}) == 1
    assert list(replies[0].tokens) == full_generate(model, renderer, stream, 8)
    # From here each goes its own way, and the frames they share are encoded once.
    frames = (picture(rng),)
    encoded = engine.vision.encoded
    says = [Silence(), Response("fire now"), Delegation("wait", "how many"), Silence()]
    for handle_, action in zip([handle, *forks], says, strict=True):
        engine.stream(handle_).act(action)
        engine.stream(handle_).observe(4, frames)
    assert engine.vision.encoded == encoded
    for reply, one in zip(engine.step([handle, *forks]), [handle, *forks], strict=True):
        assert list(reply.tokens) == full_generate(model, renderer, engine.stream(one), 8)
    assert engine.vision.encoded == encoded + 1


def test_a_turn_that_is_closed_while_its_batch_is_read_stands_once(
    qwen3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, renderer = qwen3
    engine = Engine(model, renderer, max_new_tokens=8)
    rng = random.Random(7)
    streams = [Stream(), Stream()]
    handles = [engine.open(stream) for stream in streams]
    for stream in streams:
        stream.observe(0, [picture(rng)], ["fire now"])
    rendered = renderer.user

    def user(turn: Turn, *, first: bool) -> Segment:
        if streams[1].open_turn is not None:  # given up on, while another's prompt is made
            streams[1].act(Silence())
        return rendered(turn, first=first)

    monkeypatch.setattr(renderer, "user", user)
    engine.step(handles)
    monkeypatch.undo()
    streams[0].act(Silence())
    for stream in streams:
        stream.observe(1, [picture(rng)], ["seconds"])
    for reply, stream in zip(engine.step(handles), streams, strict=True):
        assert list(reply.tokens) == full_generate(model, renderer, stream, 8)
        assert reply.prompt_tokens == len(renderer.render(stream.memory_text, stream.turns))


def test_closed_rows_are_used_again(qwen3: Any) -> None:
    model, renderer = qwen3
    engine = Engine(model, renderer, max_new_tokens=6)
    rng = random.Random(8)
    streams = [Stream() for _ in range(4)]
    handles = [engine.open(stream) for stream in streams]

    def second(number: int) -> None:
        for stream in streams:
            stream.observe(number, [picture(rng)], ["fire now"] * rng.randint(0, 1))
        for stream, reply in zip(streams, engine.step(handles), strict=True):
            assert list(reply.tokens) == full_generate(model, renderer, stream, 6)
            stream.act(reply.action or Silence())

    second(0)
    rows = engine._store.rows
    for number in (1, 2, 3):  # the first one ends, a new one begins
        engine.close(handles.pop(0))
        streams.pop(0)
        streams.append(Stream())
        handles.append(engine.open(streams[-1]))
        second(number)
    assert len(engine) == 4 and engine._store.rows == rows
    for handle in handles:
        engine.close(handle)
    assert len(engine) == 0 and engine._store.layers == []
    with pytest.raises(ValueError, match="not open"):
        engine.step([handles[0]])


def test_a_stream_closes_beside_one_that_has_not_begun(qwen3: Any) -> None:
    model, renderer = qwen3
    engine = Engine(model, renderer, max_new_tokens=6)
    rng = random.Random(9)
    first, second = Stream(), Stream()
    handle = engine.open(first)
    first.observe(0, [picture(rng)], ["fire now"])
    engine.step([handle])
    other = engine.open(second)
    engine.close(handle)
    for number in range(3):
        second.observe(number, [picture(rng)], ["fire now"])
        [reply] = engine.step([other])
        assert list(reply.tokens) == full_generate(model, renderer, second, 6)
        second.act(reply.action or Silence())


def test_limit_cuts_and_closes(qwen3: Any) -> None:
    model, renderer = qwen3
    for limit in (1, 2, 3):
        engine = Engine(model, renderer, max_new_tokens=limit)
        stream = Stream()
        handle = engine.open(stream)
        stream.observe(0, [picture(random.Random(3))], ["fire now"])
        (reply,) = engine.step([handle])
        assert len(reply.tokens) <= limit
        assert reply.truncated == (reply.tokens[-1] not in renderer.stop_ids)
        assert list(reply.tokens) == full_generate(model, renderer, stream, limit)
        if reply.text == RESPONSE:
            assert reply.truncated and reply.error == "empty response"


def test_turn_based_prompts(qwen3: Any) -> None:
    model, renderer = qwen3
    engine = Engine(model, renderer, max_new_tokens=6)
    rng = random.Random(9)
    prompts = [
        renderer.render_question("what is it " * n, [picture(rng) for _ in range(n)])
        for n in (1, 2, 3, 1, 2)
    ]
    replies = engine.generate_batch(prompts, batch=2)
    for prompt, reply in zip(prompts, replies, strict=True):
        ids = torch.tensor([prompt.ids])
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=list(renderer.stop_ids),
            **model_inputs(renderer, prompt),
        )
        assert list(reply.tokens) == output[0, len(prompt.ids) :].tolist()
        assert reply.prompt_tokens == len(prompt.ids)
    assert len(engine) == 0


def test_prompt_from_a_chat_text(qwen3: Any) -> None:
    model, renderer = qwen3
    engine = Engine(model, renderer)
    frames = [picture(random.Random(1)), picture(random.Random(2))]
    expected = renderer.render_question("what is it", frames)
    content = [{"type": "text", "text": "what is it\n"}, {"type": "image"}, {"type": "image"}]
    text = renderer.processor.chat([{"role": "user", "content": content}], True)
    found = engine.prompt(text, frames)
    assert found.ids == expected.ids
    assert (found.positions == expected.positions).all()
    with pytest.raises(ValueError, match="1 images, but 2 places"):
        engine.prompt(text, frames[:1])


def test_training_mode_and_attention_are_put_back(qwen3: Any) -> None:
    model, renderer = qwen3
    engine = Engine(model, renderer)
    stream = Stream()
    handle = engine.open(stream)
    model.train()
    stream.observe(0, [picture(random.Random(0))])
    engine.step([handle])
    assert model.training and model.config.get_text_config()._attn_implementation == "sdpa"
    model.eval()


def test_a_failed_step_can_be_repeated(qwen3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, renderer = qwen3
    engine = Engine(model, renderer, max_new_tokens=6)
    stream = Stream()
    handle = engine.open(stream)
    rng = random.Random(4)
    stream.observe(0, [picture(rng)], ["fire now"])
    engine.step([handle])
    stream.act(Response("fire now"))
    stream.observe(1, [picture(rng)])
    with monkeypatch.context() as patch:
        patch.setattr(engine.vision, "_run", lambda images: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.step([handle])
    (reply,) = engine.step([handle])
    assert list(reply.tokens) == full_generate(model, renderer, stream, 6)


def test_misuse_is_told(qwen3: Any) -> None:
    model, renderer = qwen3
    engine = Engine(model, renderer)
    stream = Stream()
    handle = engine.open(stream)
    with pytest.raises(ValueError, match="not open"):
        engine.step([handle])
    stream.observe(0, [picture(random.Random(0))])
    with pytest.raises(ValueError, match="twice"):
        engine.step([handle, handle])
    engine.step([handle])
    with pytest.raises(ValueError, match="second 0 was stepped already"):
        engine.step([handle])
    for bad in ({"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Engine(model, renderer, **bad)


def test_a_peft_model_streams_as_its_base(qwen3: Any, tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    model, processor = build_tiny(tokenizer, SHAPE, 0)
    model.load_state_dict(qwen3[0].state_dict())
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    plain, _ = drive(*qwen3, streams=2, seconds=6, seed=11, check=False)
    tuned, _ = drive(wrapped, Renderer(processor), streams=2, seconds=6, seed=11, check=False)
    assert [r.tokens for r in tuned] == [r.tokens for r in plain]


def test_kept_features_are_bounded(qwen3: Any) -> None:
    model, renderer = qwen3
    vision = VisionFeatures(model, kept=3000)
    rng = random.Random(0)
    frames = [(picture(rng), picture(rng)) for _ in range(6)]
    shown = [Images(renderer.processor.images(f), f) for f in frames]
    first = vision(shown)
    assert vision.encoded == 12 and vision._bytes <= 3000
    again = vision(shown[-1:])  # the newest is still there
    assert vision.encoded == 12
    assert torch.equal(torch.cat(again.pooler_output), torch.cat(first.pooler_output[-2:]))
    vision(shown[:1])  # the oldest is not
    assert vision.encoded == 14
    unshared = Images(shown[0].tensors)
    vision([unshared, unshared, shown[0]])
    assert vision.encoded == 16 and not any(
        isinstance(owner, Images) for owner, _ in vision._memory.values()
    )
    vision.clear()
    assert vision._bytes == 0


@pytest.mark.parametrize("incremental", [True, False])
def test_a_bias_makes_streams_talk_less_or_more(qwen3: Any, incremental: bool) -> None:
    said = {}
    for bias in (-30.0, 0.0, 30.0):
        settings: dict[str, Any] = {"incremental": incremental, "silence_bias": bias}
        said[bias], _ = drive(*qwen3, streams=2, seconds=8, seed=6, check=False, **settings)
    assert all(reply.action == Silence() for reply in said[30.0])
    assert not any(reply.action == Silence() for reply in said[-30.0])
    plain, _ = drive(*qwen3, streams=2, seconds=8, seed=6, check=False, incremental=incremental)
    assert [r.tokens for r in said[0.0]] == [r.tokens for r in plain]


def test_a_bias_of_a_silence_in_pieces_is_refused() -> None:
    pieces = build("qwen3_vl", control_tokens=False)
    Engine(pieces.model, pieces.renderer)
    with pytest.raises(ValueError, match=r"silence_bias=1.0: .* pieces"):
        Engine(pieces.model, pieces.renderer, silence_bias=1.0)
    with pytest.raises(ValueError, match="finite"):
        Engine(pieces.model, pieces.renderer, silence_bias=float("nan"))
