"""Models and processors in and out, in Hugging Face layout.

`Processor` is what rendering needs of a checkpoint: its tokenizer, its chat template and its image
processor. It does without the composite processor classes of transformers where they insist on a
video processor (and with it on torchvision): frames go in as images, never as video.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from PIL import Image
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

from joyvl_train.actions import CONTROL_TOKENS

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


class CheckpointError(ValueError):
    """A folder that is no usable checkpoint; the message says which file and why."""


class ImageShape(NamedTuple):
    """How one image reads in a prompt: the text in place of its placeholder, and its token grid."""

    expansion: str
    grid: tuple[int, int] | None


@dataclass
class Processor:
    """A checkpoint's tokenizer and image processor.

    `whole` is the composite processor where the architecture's own placeholder text is needed
    (Idefics3, SmolVLM); None for the Qwen-VL models, whose placeholder follows from the grid.
    """

    tokenizer: Any
    image_processor: Any
    image_token: str
    whole: Any = None

    def __post_init__(self) -> None:
        self.image_id = int(self.tokenizer.convert_tokens_to_ids(self.image_token))
        self.mrope = self.whole is None
        self.specials = tuple(self.tokenizer.get_added_vocab())
        self._shapes: dict[tuple[int, int], ImageShape] = {}

    def chat(self, messages: list[dict[str, Any]], prompt: bool) -> str:
        """The chat template's text for `messages`."""
        source = self.whole if self.whole is not None else self.tokenizer
        text: str = source.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=prompt
        )
        return text

    def images(self, frames: Sequence[Any]) -> dict[str, torch.Tensor]:
        """The image processor's tensors for `frames` (PIL images, or tensors made before).

        Qwen-VL: pixel_values [patches, C * T * P * P] and image_grid_thw [N, 3]. Others: their own,
        first axis images.
        """
        if frames and isinstance(frames[0], dict):
            return {k: torch.cat([f[k] for f in frames]) for k in frames[0]}
        if self.whole is None:
            fast = _patches(self.image_processor, frames)
            if fast is not None:
                return fast
            out = self.image_processor(images=list(frames), return_tensors="pt")
            return {k: out[k] for k in ("pixel_values", "image_grid_thw")}
        out = self.image_processor(
            images=[list(frames)], return_tensors="pt", return_row_col_info=True
        )
        self._rows = out.get("rows"), out.get("cols")
        return {k: out[k][0] for k in ("pixel_values", "pixel_attention_mask") if k in out}

    def image_shapes(self, images: dict[str, torch.Tensor], count: int) -> tuple[ImageShape, ...]:
        """The prompt text and grid of each of the `count` images that `images` holds."""
        if not count:
            return ()
        if self.whole is None:
            merge = self.image_processor.merge_size
            shapes = []
            for _, height, width in images["image_grid_thw"].tolist():
                grid = (height // merge, width // merge)
                shapes.append(ImageShape(self.image_token * (grid[0] * grid[1]), grid))
            return tuple(shapes)
        rows, columns = self._rows
        data = {"rows": rows, "cols": columns}
        return tuple(
            ImageShape(self.whole.replace_image_token(data, index), None) for index in range(count)
        )

    def save(self, folder: Path) -> None:
        """Write the tokenizer's and the image processor's files into `folder`."""
        if self.whole is not None:
            self.whole.save_pretrained(folder)
            return
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        path = folder / "preprocessor_config.json"
        data = json.loads(path.read_text())
        # The name without a backend: each side then takes the one that it has.
        data["image_processor_type"] = data["image_processor_type"].removesuffix("Pil")
        data["processor_class"] = "Qwen3VLProcessor"
        path.write_text(json.dumps(data, indent=2) + "\n")


def _patches(processor: Any, frames: Sequence[Any]) -> dict[str, torch.Tensor] | None:
    """What `Qwen2VLImageProcessorPil` makes of frames that need no resize, in one pass.

    None where the frames differ in size or must be resized: then the processor itself is asked. A
    test holds the two equal.
    """
    size, patch, merge = processor.size, processor.patch_size, processor.merge_size
    first = frames[0]
    if not isinstance(first, Image.Image) or type(processor) is not Qwen2VLImageProcessorPil:
        return None
    width, height = first.size
    unit = patch * merge
    if (
        height % unit
        or width % unit
        or not (size["shortest_edge"] <= height * width <= size["longest_edge"])
    ):
        return None
    if any(f.size != first.size or f.mode != "RGB" for f in frames):
        return None
    count, rows, columns = len(frames), height // patch, width // patch
    pixels = np.stack([np.asarray(f) for f in frames]).astype(np.float32)
    mean = np.asarray(processor.image_mean, dtype=np.float32)
    std = np.asarray(processor.image_std, dtype=np.float32)
    pixels = (pixels * np.float32(processor.rescale_factor) - mean) / std
    # [N, row blocks, merge, P, column blocks, merge, P, C] -> patches in the merger's order
    blocks = pixels.reshape(
        count, rows // merge, merge, patch, columns // merge, merge, patch, 3
    ).transpose(0, 1, 4, 2, 5, 7, 3, 6)
    flat = blocks.reshape(count * rows * columns, 3, 1, patch * patch)
    flat = np.broadcast_to(
        flat, (flat.shape[0], 3, processor.temporal_patch_size, patch * patch)
    ).reshape(flat.shape[0], -1)
    grid = torch.tensor([[1, rows, columns]]).repeat(count, 1)
    return {"pixel_values": torch.from_numpy(np.ascontiguousarray(flat)), "image_grid_thw": grid}


# -- loading and saving --------------------------------------------------------------------------


def load_processor(path: str | Path, *, control_tokens: str = "keep") -> Processor:
    """The processor of a checkpoint folder or hub name.

    `control_tokens="add"` adds those control tokens that the tokenizer lacks; the model's
    embeddings must then follow (`load` does both).
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"no tokenizer in {path}: {_first_line(error)}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(f"the tokenizer of {path} is not a fast one; convert it first")
    if tokenizer.chat_template is None and not _has_template(path):
        raise CheckpointError(f"the tokenizer of {path} has no chat template")
    if control_tokens == "add":
        add_control_tokens(tokenizer)
    config = _config(path)
    if getattr(getattr(config, "vision_config", None), "spatial_merge_size", None) is not None:
        try:
            images = Qwen2VLImageProcessorPil.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"no image processor in {path}: {_first_line(error)}") from error
        token = tokenizer.convert_ids_to_tokens(config.image_token_id)
        return Processor(tokenizer, images, token)
    whole = AutoProcessor.from_pretrained(path, backend="pil")
    whole.tokenizer = tokenizer
    return Processor(tokenizer, whole.image_processor, whole.image_token, whole)


def _has_template(path: str | Path) -> bool:
    folder = Path(path)
    return any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json"))


def _config(path: str | Path) -> Any:
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"no model config in {path}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def load(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    control_tokens: str = "keep",
    attention: str | None = None,
) -> tuple[Any, Processor]:
    """(model, processor) of a checkpoint folder or hub name.

    control_tokens: `add` gives the tokenizer the control tokens that it lacks, their embeddings
    starting at the mean of the pieces they replace; `keep` takes the tokenizer as it is.
    """
    processor = load_processor(path)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            path, dtype=dtype, attn_implementation=attention
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"no model weights in {path}: {_first_line(error)}") from error
    if control_tokens == "add":
        pieces = {
            token: processor.tokenizer.encode(token, add_special_tokens=False)
            for token in CONTROL_TOKENS
        }
        added = add_control_tokens(processor.tokenizer)
        processor.__post_init__()
        grow_embeddings(model, processor.tokenizer, {t: pieces[t] for t in added})
    return model, processor


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

    Written beside `folder` and renamed, so that a checkpoint is there whole or not at all. `source`
    is the folder it was trained from: its side files are carried along.
    """
    folder = Path(folder)
    staged = folder.with_name(folder.name + ".partial")
    if staged.exists():
        shutil.rmtree(staged)
    staged.mkdir(parents=True)
    model.save_pretrained(staged)
    processor.save(staged)
    if source is not None:
        for name in SIDE_FILES:
            if (Path(source) / name).is_file():
                shutil.copy(Path(source) / name, staged / name)
    if processor.whole is None and not (staged / SIDE_FILES[0]).exists():
        (staged / SIDE_FILES[0]).write_text(json.dumps(_video_config(processor), indent=2) + "\n")
    old = folder.with_name(folder.name + ".old")
    if old.exists():
        shutil.rmtree(old)
    if folder.exists():
        folder.rename(old)
    staged.rename(folder)
    if old.exists():
        shutil.rmtree(old)


def _video_config(processor: Processor) -> dict[str, Any]:
    """What the composite processors of transformers ask for, though no video is ever passed."""
    images = processor.image_processor
    return {
        "video_processor_type": "Qwen3VLVideoProcessor",
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
            special_tokens=[*QWEN_TOKENS, *CONTROL_TOKENS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in (*QWEN_TOKENS, *CONTROL_TOKENS)],
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
    special = tokenizer.convert_tokens_to_ids
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
        model = Qwen3VLForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
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
