"""Models and processors in and out, in Hugging Face layout."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils.hub import cached_file

from joyvl_train.actions import CONTROL_TOKENS
from joyvl_train.processor import QWEN_CLASSES, CheckpointError, Processor

__all__ = [
    "CheckpointError",
    "Processor",
    "TinyShape",
    "add_control_tokens",
    "build_tiny",
    "control_ids",
    "grow_embeddings",
    "load",
    "load_for_inference",
    "load_processor",
    "recover",
    "run_device",
    "save",
    "train_tokenizer",
]

SIDE_FILES = ("video_preprocessor_config.json", "README.md", "LICENSE")
"""Files of a checkpoint folder that travel with it though nothing here reads them."""

CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for part in message.content %}"
    "{%- if part.type == 'image' or 'image' in part or 'image_url' in part %}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif 'text' in part %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML with Qwen's image placeholder, the dialogue form that the Qwen-VL models speak."""

QWEN_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


# -- loading and saving --------------------------------------------------------------------------


def load_processor(path: str | Path, *, control_tokens: str = "keep") -> Processor:
    """The processor of a checkpoint folder or hub name.

    `control_tokens="add"` adds those control tokens that the tokenizer lacks; the model's
    embeddings must then follow (`load` does both). Raises `CheckpointError`.
    """
    recover(path)
    config = _config(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except _LOAD_ERRORS as error:
        raise CheckpointError(f"no tokenizer in {path}: {_first_line(error)}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"the tokenizer of {path} is no fast one (tokenizer.json); convert it first"
        )
    if not tokenizer.encode("a", add_special_tokens=False):
        # transformers makes an empty one where the file is missing.
        raise CheckpointError(f"no tokenizer in {path}: tokenizer.json is missing or empty")
    tokenizer.chat_template = _chat_template(path, tokenizer)
    if control_tokens == "add":
        add_control_tokens(tokenizer)
    try:
        if config.model_type in QWEN_CLASSES:
            images = Qwen2VLImageProcessorPil.from_pretrained(path)
            token = tokenizer.convert_ids_to_tokens(config.image_token_id)
            if not isinstance(token, str):
                raise CheckpointError(
                    f"{path}: the tokenizer has no token {config.image_token_id}, which the config "
                    "names as the image's; they belong to different checkpoints"
                )
            return Processor(tokenizer, images, token, None, config.model_type)
        whole: Any = AutoProcessor.from_pretrained(path, backend="pil")  # type: ignore[no-untyped-call]
    except CheckpointError:
        raise
    except _LOAD_ERRORS as error:
        raise CheckpointError(f"no image processor in {path}: {_first_line(error)}") from error
    if not hasattr(whole, "replace_image_token") or not hasattr(whole, "image_processor"):
        raise CheckpointError(
            f"{path}: the processor of a {config.model_type} model isn't one that is understood; "
            "take a Qwen-VL or an Idefics3 checkpoint"
        )
    whole.tokenizer = tokenizer
    whole.chat_template = tokenizer.chat_template
    return Processor(tokenizer, whole.image_processor, whole.image_token, whole, config.model_type)


_LOAD_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    SafetensorError,
)
"""What transformers raises on files that are missing, cut off or of another kind."""


def _chat_template(path: str | Path, tokenizer: Any) -> str:
    """The template that a server takes: the processor's own where the checkpoint has one."""
    found = cached_file(path, "chat_template.json", **_MAY_BE_ABSENT)
    try:
        template = json.loads(Path(found).read_text())["chat_template"] if found else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: chat_template.json can't be read: {_first_line(error)}"
        ) from error
    template = template or tokenizer.chat_template
    if not isinstance(template, str):
        raise CheckpointError(
            f"the tokenizer of {path} has no chat template; add a chat_template.jinja"
        )
    return template


_MAY_BE_ABSENT: dict[str, Any] = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
    "_raise_exceptions_for_gated_repo": False,
}


def _config(path: str | Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(path)
    except _LOAD_ERRORS as error:
        raise CheckpointError(f"no model config in {path}: {_first_line(error)}") from error
    if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise CheckpointError(
            f"{path} holds a {config.model_type} model; an image-text-to-text one is needed"
        )
    return config


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def load(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    control_tokens: str = "keep",
    attention: str | None = None,
) -> tuple[Any, Processor]:
    """(model, processor) of a checkpoint folder or hub name. Raises `CheckpointError`.

    control_tokens: `add` gives the tokenizer the control tokens that it lacks, their embeddings
    starting at the mean of the pieces they replace; `keep` takes the tokenizer as it is.
    """
    processor = load_processor(path)
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            path, dtype=dtype, attn_implementation=attention, output_loading_info=True
        )
    except _LOAD_ERRORS as error:
        raise CheckpointError(f"no model weights in {path}: {_first_line(error)}") from error
    model, found = loaded
    if found["missing_keys"]:
        # transformers would go on with random weights in their place.
        first = min(found["missing_keys"])
        raise CheckpointError(
            f"the weights in {path} lack {len(found['missing_keys'])} tensors, {first} among them"
        )
    if control_tokens == "add":
        pieces = {
            token: processor.tokenizer.encode(token, add_special_tokens=False)
            for token in CONTROL_TOKENS
        }
        added = add_control_tokens(processor.tokenizer)
        processor.__post_init__()
        grow_embeddings(model, processor.tokenizer, {t: pieces[t] for t in added})
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max(processor.tokenizer.get_vocab().values())
    if largest >= rows:
        raise CheckpointError(
            f"{path}: the tokenizer has ids up to {largest}, the model {rows} embeddings; "
            "they belong to different checkpoints"
        )
    return model, processor


def run_device() -> torch.device:
    """Where this process computes: its GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def load_for_inference(
    path: str | Path, dtype: str = "auto", *, min_pixels: int = 0, max_pixels: int = 0
) -> tuple[Any, Processor]:
    """(model, processor) on this process's device, for evaluation. Raises `CheckpointError`.

    dtype: `auto` (bf16), or torch's name of one; on a CPU float32 always. The bounds are those of
    `Processor.limit_pixels`. The memory of models that nobody holds any more is freed first.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    device, kind = run_device(), torch.float32
    if device.type != "cpu":
        kind = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    model, processor = load(path, dtype=kind)
    processor.limit_pixels(min_pixels, max_pixels)
    return model.to(device).eval(), processor


def control_ids(tokenizer: Any) -> list[int]:
    """The ids of those control tokens that are single tokens."""
    found = [tokenizer.encode(token, add_special_tokens=False) for token in CONTROL_TOKENS]
    return [ids[0] for ids in found if len(ids) == 1]


def add_control_tokens(tokenizer: Any) -> list[str]:
    """Make the control tokens single tokens; returns those that were not before."""
    lacking = [
        token
        for token in CONTROL_TOKENS
        if len(tokenizer.encode(token, add_special_tokens=False)) != 1
    ]
    if lacking:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": lacking}, replace_extra_special_tokens=False
        )
    return lacking


def grow_embeddings(model: Any, tokenizer: Any, pieces: dict[str, list[int]]) -> None:
    """Give new tokens a row each, at the mean of the rows of the pieces that they replace."""
    if not pieces:
        return
    size = max(tokenizer.convert_tokens_to_ids(list(pieces))) + 1
    if model.get_input_embeddings().weight.shape[0] < size:
        model.resize_token_embeddings(size, mean_resizing=False)
    tables = [model.get_input_embeddings().weight]
    output = model.get_output_embeddings()
    if output is not None and output.weight is not tables[0]:
        tables.append(output.weight)
    with torch.no_grad():
        for token, ids in pieces.items():
            row = tokenizer.convert_tokens_to_ids(token)
            for table in tables:
                table[row] = table[ids].float().mean(0).to(table.dtype)


def save(
    model: Any, processor: Processor, folder: str | Path, *, source: str | Path | None = None
) -> None:
    """Write a checkpoint folder that `transformers` and `vllm serve` load as it is.

    Written beside `folder` and renamed, so that a checkpoint is there whole or not at all; whatever
    instant the writer is killed at, `recover` (and so `load`) finds the old one or the new one.
    `source` is the folder it was trained from: its side files are carried along. Raises
    `CheckpointError` where it can't be written.
    """
    folder = Path(folder).absolute()
    recover(folder)
    staged, old = folder.with_name(folder.name + ".partial"), _old(folder)
    try:
        for left in (staged, old):
            if left.exists():
                shutil.rmtree(left)
        staged.mkdir(parents=True)
        model.save_pretrained(staged)
        processor.save(staged)
        if source is not None:
            for name in SIDE_FILES:
                if (Path(source) / name).is_file():
                    shutil.copy(Path(source) / name, staged / name)
        if processor.whole is None and not (staged / SIDE_FILES[0]).exists():
            video = json.dumps(_video_config(processor), indent=2)
            (staged / SIDE_FILES[0]).write_text(video + "\n")
        if folder.exists():
            folder.rename(old)
        staged.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint {str(folder)!r} can't be written: {_first_line(error)}; free some "
            "space or name another folder"
        ) from error


def recover(folder: str | Path) -> None:
    """Put back the checkpoint that a killed `save` had moved aside, where none stands now.

    It is called on whatever folder is loaded, so it deletes nothing.
    """
    folder = Path(folder).absolute()
    old = _old(folder)
    if old.is_dir() and not folder.exists():
        old.rename(folder)


def _old(folder: Path) -> Path:
    return folder.with_name(folder.name + ".replaced")


def _video_config(processor: Processor) -> dict[str, Any]:
    """What the composite processors of transformers ask for, though no video is ever passed."""
    images = processor.image_processor
    return {
        "video_processor_type": QWEN_CLASSES[processor.model_type][1],
        "size": dict(images.size),
        "patch_size": images.patch_size,
        "temporal_patch_size": images.temporal_patch_size,
        "merge_size": images.merge_size,
        "image_mean": list(images.image_mean),
        "image_std": list(images.image_std),
    }


# -- the small model -----------------------------------------------------------------------------


@dataclass(frozen=True)
class TinyShape:
    """The small model's sizes: Qwen3-VL's architecture, small enough to learn on two CPU cores."""

    vocabulary: int = 2048
    hidden: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 768
    vision_hidden: int = 160
    vision_layers: int = 4
    vision_heads: int = 4
    vision_feed_forward: int = 640
    deepstack: tuple[int, ...] = (1,)
    patch: int = 16
    side: int = 96
    positions: int = 16384


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Qwen's special tokens and the control tokens.

    Digits stand alone, as in Qwen's own, so that numbers can be copied and counted.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    specials = [*QWEN_TOKENS, *CONTROL_TOKENS]
    bpe = Tokenizer(models.BPE())
    words = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=specials,
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
        model_max_length=16384,
    )


def build_tiny(
    tokenizer: PreTrainedTokenizerFast, shape: TinyShape, seed: int
) -> tuple[Any, Processor]:
    """A small Qwen3-VL with random weights from `seed`, and its processor."""
    head = shape.hidden // shape.heads
    third = head // 6  # of the head's rotary pairs, about a third each for time, height and width
    sections = [head // 2 - 2 * third, third, third]
    special: Any = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": shape.vocabulary,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.feed_forward,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": head,
            "max_position_embeddings": shape.positions,
            "rope_theta": 100_000.0,
            "rope_scaling": {
                "rope_type": "default",
                "mrope_section": sections,
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "initializer_range": 0.02,
            "bos_token_id": special("<|endoftext|>"),
            "eos_token_id": special("<|im_end|>"),
            "pad_token_id": special("<|endoftext|>"),
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_hidden,
            "intermediate_size": shape.vision_feed_forward,
            "num_heads": shape.vision_heads,
            "out_hidden_size": shape.hidden,
            "patch_size": shape.patch,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "num_position_embeddings": (shape.side // shape.patch) ** 2,
            "deepstack_visual_indexes": list(shape.deepstack),
        },
        image_token_id=special("<|image_pad|>"),
        video_token_id=special("<|video_pad|>"),
        vision_start_token_id=special("<|vision_start|>"),
        vision_end_token_id=special("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config)  # type: ignore[no-untyped-call]
    model.generation_config = transformers.GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=[special("<|im_end|>"), special("<|endoftext|>")],
        pad_token_id=special("<|endoftext|>"),
        do_sample=False,
    )
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 32 * 32, "longest_edge": 1280 * 1280},
        patch_size=shape.patch,
        temporal_patch_size=2,
        merge_size=2,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return model, Processor(tokenizer, images, "<|image_pad|>")
