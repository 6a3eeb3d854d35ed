"""What rendering needs of a checkpoint: its tokenizer, chat template and image processor.

It does without the composite processor classes of transformers where they insist on a video
processor (and with it on torchvision): frames go in as images, never as video.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from joyvl_train.config import UserError

QWEN_CLASSES = {
    "qwen2_vl": ("Qwen2VLProcessor", "Qwen2VLVideoProcessor"),
    "qwen2_5_vl": ("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
    "qwen3_vl": ("Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
    "qwen3_vl_moe": ("Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
}
"""Model type -> the composite processor and the video processor that its checkpoints name."""


class CheckpointError(UserError):
    """A folder that is no usable checkpoint; the message says which file and why."""


class ImageTensors(dict[str, torch.Tensor]):
    """The image processor's tensors by name. `tiles`: where the architecture cuts images up, the
    rows and columns of each."""

    tiles: tuple[tuple[int, int], ...] = ()


class ImageShape(NamedTuple):
    """How one image reads in a prompt: the text in place of its placeholder, and its token grid."""

    expansion: str
    grid: tuple[int, int] | None


@dataclass
class Processor:
    """A checkpoint's tokenizer and image processor.

    `whole` is the composite processor where the architecture's own placeholder text is needed
    (Idefics3); None for the Qwen-VL models, whose placeholder follows from the grid.
    """

    tokenizer: Any
    image_processor: Any
    image_token: str
    whole: Any = None
    model_type: str = "qwen3_vl"
    image_id: int = field(init=False)
    mrope: bool = field(init=False)
    specials: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.image_id = int(self.tokenizer.convert_tokens_to_ids(self.image_token))
        self.mrope = self.whole is None
        # The longest first, for a token may begin with another.
        self.specials = tuple(sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True))
        # Tokens that `conversation.clean` doesn't break, in a tokenizer with other brackets.
        self._breakable = tuple(
            str(token)
            for token in self.tokenizer.added_tokens_decoder.values()
            if token.special and not str(token).startswith("<")
        )

    def harmless(self, text: str) -> str:
        """`text`, already cleaned, with no special token of this tokenizer in it.

        With a tokenizer that has such a token, "see [INST]" becomes "see [ INST]".
        """
        for token in self._breakable:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}" if token[1:] else " ")
        return text

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
        first axis images (or the tiles that they cut images into).
        """
        if frames and isinstance(frames[0], dict):
            joined = ImageTensors({k: torch.cat([f[k] for f in frames]) for k in frames[0]})
            joined.tiles = tuple(tile for f in frames for tile in getattr(f, "tiles", ((0, 0),)))
            return joined
        if self.whole is None:
            fast = _patches(self.image_processor, frames)
            if fast is not None:
                return fast
            out = self.image_processor(images=list(frames), return_tensors="pt")
            return {k: out[k] for k in ("pixel_values", "image_grid_thw")}
        out = self.image_processor(
            images=[list(frames)], return_tensors="pt", return_row_col_info=True
        )
        images = ImageTensors(
            {k: out[k][0] for k in ("pixel_values", "pixel_attention_mask") if k in out}
        )
        if "rows" in out:
            images.tiles = tuple(zip(out["rows"][0], out["cols"][0], strict=True))
        return images

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
        tiles = getattr(images, "tiles", ()) or ((0, 0),) * count
        data = {"rows": [[rows for rows, _ in tiles]], "cols": [[columns for _, columns in tiles]]}
        return tuple(
            ImageShape(self.whole.replace_image_token(data, index), None) for index in range(count)
        )

    def limit_pixels(self, least: int = 0, most: int = 0) -> None:
        """Bound the pixels of a frame; 0 leaves a bound as it is. Saved with the processor.

        Raises `CheckpointError` where the image processor sizes frames in another way.
        """
        if not least and not most:
            return
        size = dict(self.image_processor.size)
        if self.whole is not None or not {"shortest_edge", "longest_edge"} <= set(size):
            raise CheckpointError(
                "model.min_pixels and model.max_pixels: the image processor of this model does not "
                "count pixels; leave them at 0"
            )
        size["shortest_edge"] = least or size["shortest_edge"]
        size["longest_edge"] = most or size["longest_edge"]
        self.image_processor.size = size

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
        data["processor_class"] = QWEN_CLASSES[self.model_type][0]
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
    total, times = count * rows * columns, processor.temporal_patch_size
    single = blocks.reshape(total, 3, 1, patch * patch)
    flat = np.broadcast_to(single, (total, 3, times, patch * patch)).reshape(total, -1)
    grid = torch.tensor([[1, rows, columns]]).repeat(count, 1)
    return {"pixel_values": torch.from_numpy(np.ascontiguousarray(flat)), "image_grid_thw": grid}
