"""Small random models of three architectures, built once a session, and chats to render."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from joyvl_train import checkpoint
from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.checkpoint import Processor, build_tiny, train_tokenizer
from joyvl_train.rendering import Renderer
from joyvl_train.stream import Predicted, Turn
from tests import tiny_training

ARCHITECTURES = ("qwen3_vl", "qwen2_5_vl", "idefics3")
TEXTS = ["the red ball rolls left and a dog runs by", "<7.0 seconds> fire now", "[Background 1] ok"]
SHAPE = replace(tiny_training.SHAPE, vocabulary=360, feed_forward=64)
# The template that Idefics3 and SmolVLM checkpoints carry.
IDEFICS_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
OUTSIDE = [  # what must not become a token of the format when it comes from outside
    "</silence>",
    "</response>",
    "</delegation>",
    "<|im_end|>",
    "<|im_start|>",
    "<|image_pad|>",
    "<|vision_start|>",
    "<image>",
    "<fake_token_around_image>",
    "<end_of_utterance>",
    "[MARK]",
    "[Background 1]",
    "<1.0 seconds>",
]


@dataclass(frozen=True)
class Speaker:
    """A model with its renderer."""

    name: str
    model: Any
    renderer: Renderer

    @property
    def processor(self) -> Processor:
        return self.renderer.processor


def tokenizer_of(words: bool, *, control_tokens: bool = True) -> Any:
    """A small tokenizer with a special token in other brackets, for the Qwens or Idefics3."""
    with pytest.MonkeyPatch.context() as patch:
        if not control_tokens:
            patch.setattr(checkpoint, "CONTROL_TOKENS", ())
        tokenizer = train_tokenizer([*TEXTS, "see </ b and </ c"] * 3, SHAPE.vocabulary)
    more = ["[MARK]"]
    if not words:
        tokenizer.chat_template = IDEFICS_TEMPLATE
        tokenizer.eos_token = "<end_of_utterance>"
        grid = [f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)]
        more += ["<fake_token_around_image>", "<image>", "<global-img>", *grid]
    tokenizer.add_special_tokens(
        {"additional_special_tokens": more}, replace_extra_special_tokens=False
    )
    return tokenizer


def build(name: str, *, control_tokens: bool = True, seed: int = 0) -> Speaker:
    """A random model of the architecture `name`. Same seed, same weights."""
    tokenizer = tokenizer_of(name != "idefics3", control_tokens=control_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "qwen3_vl":
            shape = replace(SHAPE, vocabulary=len(tokenizer))
            model, processor = build_tiny(tokenizer, shape, seed)
        else:
            make = _qwen2_5 if name == "qwen2_5_vl" else _idefics3
            model, processor = make(tokenizer)
    return Speaker(name, model.eval(), Renderer(processor))


def _qwen2_5(tokenizer: Any) -> tuple[Any, Processor]:
    special = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_theta": 10000.0,
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 2, 2]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 48,
            "patch_size": 16,
            "window_size": 64,
            "fullatt_block_indexes": [1],
        },
        image_token_id=special("<|image_pad|>"),
        video_token_id=special("<|video_pad|>"),
        vision_start_token_id=special("<|vision_start|>"),
        vision_end_token_id=special("<|vision_end|>"),
    )
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 1024, "longest_edge": 65536}, patch_size=16
    )
    processor = Processor(tokenizer, images, "<|image_pad|>", None, "qwen2_5_vl")
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _idefics3(tokenizer: Any) -> tuple[Any, Processor]:
    """Positions on one axis; images wider than 32 pixels are cut into tiles."""
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=True
    )
    whole = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=IDEFICS_TEMPLATE)
    config = Idefics3Config(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = Processor(tokenizer, images, "<image>", whole, "idefics3")
    return Idefics3ForConditionalGeneration(config), processor


@pytest.fixture(scope="session")
def speakers() -> dict[str, Speaker]:
    """By architecture, with the control tokens as single tokens."""
    return {name: build(name) for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def in_pieces() -> dict[str, Speaker]:
    """By architecture, with control strings that the tokenizer reads in pieces."""
    return {name: build(name, control_tokens=False) for name in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def speaker(request: Any, speakers: dict[str, Speaker]) -> Speaker:
    return speakers[request.param]


def picture(seed: int, size: tuple[int, int] = (64, 32)) -> Image.Image:
    """A picture of noise."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def texts() -> st.SearchStrategy[str]:
    """What users and annotators might write, with the strings of the format among it."""
    piece = st.one_of(
        st.sampled_from(OUTSIDE),
        st.sampled_from(
            ["<", "</", "[", "silence>", "|im_end|>", " ", "\n", "\t", "é", "漢字", "🔥"]
        ),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    )
    return st.lists(piece, min_size=1, max_size=5).map("".join)


def actions() -> st.SearchStrategy[Any]:
    said = texts().map(lambda t: f"so {' '.join(t.split())}".strip()).map(_plain)
    return st.one_of(
        st.just(Silence()),
        st.just(Silence()),
        said.map(Response),
        st.tuples(said, said).map(lambda pair: Delegation(*pair)),
    )


def _plain(text: str) -> str:
    """No control string: an action refuses one. Other special tokens stay in."""
    from joyvl_train.actions import CONTROL_TOKENS, fold

    for token in CONTROL_TOKENS:
        text = text.replace(token, token[1:])
    text = fold(text)
    return "so" if any(token in text for token in CONTROL_TOKENS) else text


@st.composite
def chats(draw: Any, least: int = 1, most: int = 5) -> list[Turn]:
    """The turns of a chunk: seconds left out, several frames of two sizes, background lines."""
    second, turns = draw(st.integers(0, 200)), []
    for _ in range(draw(st.integers(least, most))):
        frames = tuple(
            picture(seed, size)
            for seed, size in draw(
                st.lists(
                    st.tuples(st.integers(0, 3), st.sampled_from([(64, 32), (32, 32)])),
                    min_size=1,
                    max_size=2,
                )
            )
        )
        queries = tuple(draw(st.lists(texts(), max_size=2)))
        results = tuple(draw(st.lists(st.tuples(st.integers(1, 12), texts()), max_size=1)))
        coded = draw(st.booleans())  # the smaller ones then show a change alone
        shown = [Predicted(f) if coded and f.size == (32, 32) else f for f in frames]
        turn = Turn(second, (), queries, results, draw(actions()))
        turns.append(turn.showing(shown))
        second += draw(st.integers(1, 3))
    return turns


@pytest.fixture(scope="module")
def renderer(speakers: Any) -> Renderer:
    found: Renderer = speakers["qwen3_vl"].renderer
    return found
