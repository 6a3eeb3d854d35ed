"""Vision features of a tower that is not trained: computed once a frame and kept.

A frame is known by the content of its tensors, so that it is found again in another sample, epoch
or chunk. Features are computed in groups of one fixed size: what a frame's features are, to the
last bit, does not depend on which frames happened to be missing beside it.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from joyvl_train.config import UserError

_GROUP = 8


def can_reuse(model: Any) -> bool:
    """Whether `model` (a transformers one) takes vision features, frame by frame, for pictures."""
    takes = inspect.signature(model.model.forward).parameters
    return "mm_encoder_outputs" in takes and hasattr(model.model, "visual")


class FrozenVision:
    """The features of a frozen tower's images, the newest `kept` bytes of them kept in memory.

    `encoded` counts the images that went through the tower. Raises `UserError` where the model's
    architecture has no place for features computed before, or where the tower is trained.
    """

    def __init__(self, model: Any, kept: int) -> None:
        kind = getattr(model.config, "model_type", type(model).__name__)
        if not can_reuse(model):
            raise UserError(
                f"vision features can't be reused with {kind}: its forward does not take them a "
                "frame at a time; train without reuse"
            )
        if any(p.requires_grad for p in model.model.visual.parameters()):
            raise UserError(
                "vision features can be reused only where the tower and the projector are not "
                "trained: model.freeze=[vision,projector]"
            )
        self.encoded = 0
        self._kept = kept
        self._memory: OrderedDict[bytes, list[Tensor]] = OrderedDict()
        self._bytes = 0

    def keys(self, images: Mapping[str, Tensor]) -> list[bytes]:
        """The names of the frames in `images`, a name a frame, from their tensors on the CPU."""
        return [
            hashlib.blake2b(
                pixels.contiguous().numpy().data, digest_size=16, salt=repr(grid).encode()[:16]
            ).digest()
            for pixels, grid in _frames(images)
        ]

    @torch.no_grad()
    def __call__(
        self, model: Any, images: Mapping[str, Tensor], keys: Sequence[bytes]
    ) -> SimpleNamespace:
        """The features of all `images`, as the model's forward takes them."""
        frames = _frames(images)
        absent: dict[tuple[int, ...], dict[bytes, Tensor]] = {}
        for key, (pixels, grid) in zip(keys, frames, strict=True):
            if key not in self._memory:
                absent.setdefault(grid, {})[key] = pixels
        for grid, wanted in absent.items():
            self._encode(model, grid, wanted)
        device = model.device
        found = [[level.to(device) for level in self._memory[key]] for key in keys]
        for key in keys:
            self._memory.move_to_end(key)
        while self._bytes > self._kept:
            _, old = self._memory.popitem(last=False)
            self._bytes -= sum(level.nbytes for level in old)
        pooled, *deep = zip(*found, strict=True)
        return SimpleNamespace(
            pooler_output=list(pooled), deepstack_features=[list(level) for level in deep]
        )

    def _encode(self, model: Any, grid: tuple[int, ...], wanted: Mapping[bytes, Tensor]) -> None:
        names = list(wanted)
        for start in range(0, len(names), _GROUP):
            group = names[start : start + _GROUP]
            padded = [wanted[key] for key in group]
            padded += padded[-1:] * (_GROUP - len(group))
            output = model.model.get_image_features(
                torch.cat(padded).to(model.device),
                torch.tensor([grid] * _GROUP, device=model.device),
                return_dict=True,
            )
            deep = getattr(output, "deepstack_features", None) or []
            for at, key in enumerate(group):
                kept = [level[at] for level in (output.pooler_output, *deep)]
                self._memory[key] = [item.detach().cpu().clone() for item in kept]
                self._bytes += sum(item.nbytes for item in self._memory[key])
            self.encoded += len(group)


def _frames(images: Mapping[str, Tensor]) -> list[tuple[Tensor, tuple[int, ...]]]:
    grids = [tuple(grid) for grid in images["image_grid_thw"].tolist()]
    pixels = torch.split(images["pixel_values"], [t * h * w for t, h, w in grids])
    return list(zip(pixels, grids, strict=True))
