"""Vision features, computed once a frame: batched over streams and kept for who sees it again."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Images:
    """The processor's outputs for the images of one segment.

    `frames` says whose pictures they are: the same objects are encoded once, however many streams
    show them (forks of a stream share their frames, and a chunk opens with turns of the one
    before). None: not to be kept.
    """

    tensors: Mapping[str, Tensor]
    frames: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Features:
    """An item an image; `deep` has a list a deepstack level."""

    pooled: list[Tensor]
    deep: list[list[Tensor]]

    @property
    def bytes(self) -> int:
        return sum(item.nbytes for level in (self.pooled, *self.deep) for item in level)


class VisionFeatures:
    """The features of a model's images, the newest `kept` bytes of them kept.

    `encoded` counts the images that went through the vision tower.
    """

    def __init__(self, model: Any, kept: int) -> None:
        self.encoded = 0
        self._model = model
        self._kept = kept
        self._memory: OrderedDict[tuple[int, ...], tuple[object, _Features]] = OrderedDict()
        self._bytes = 0
        self._takes = frozenset(inspect.signature(model.get_image_features).parameters)
        self._pooled_list = False

    def clear(self) -> None:
        """Forget everything that is kept."""
        self._memory.clear()
        self._bytes = 0

    def __call__(self, images: Sequence[Images]) -> SimpleNamespace:
        """The features of all `images` in their order, in the form that the model's forward takes
        as `mm_encoder_outputs["image"]`."""
        # The kept entry holds its frames, so that their ids can't pass to other objects.
        keys = [
            (id(image),) if image.frames is None else tuple(map(id, image.frames))
            for image in images
        ]
        missing = {k: i for k, i in zip(keys, images, strict=True) if k not in self._memory}
        for (key, image), features in zip(
            missing.items(), self._encode(list(missing.values())), strict=True
        ):
            self._memory[key] = (image if image.frames is None else image.frames, features)
            self._bytes += features.bytes
        found = [self._memory[key][1] for key in keys]
        for key, image in zip(keys, images, strict=True):
            # What nobody can ask for again goes first.
            self._memory.move_to_end(key, last=image.frames is not None)
        while self._memory and (self._bytes > self._kept or self._is_unshared()):
            _, (_, features) = self._memory.popitem(last=False)
            self._bytes -= features.bytes
        return self._joined(found)

    def _is_unshared(self) -> bool:
        return isinstance(next(iter(self._memory.values()))[0], Images)

    def _joined(self, found: Sequence[_Features]) -> SimpleNamespace:
        pooled = [item for features in found for item in features.pooled]
        levels = len(found[0].deep)
        return SimpleNamespace(
            pooler_output=pooled if self._pooled_list else torch.cat(pooled),
            deepstack_features=[
                [item for features in found for item in features.deep[level]]
                for level in range(levels)
            ],
        )

    def _encode(self, images: Sequence[Images]) -> list[_Features]:
        """Models that describe images by grids take any number at once, others a segment."""
        if not images:
            return []
        if any("image_grid_thw" not in image.tensors for image in images):
            return [self._run([image]) for image in images]
        together = self._run(images)
        result, start = [], 0
        for image in images:
            stop = start + len(image.tensors["image_grid_thw"])
            part = slice(start, stop)
            result.append(_Features(together.pooled[part], [d[part] for d in together.deep]))
            start = stop
        return result

    def _run(self, images: Sequence[Images]) -> _Features:
        device = self._model.device
        tensors = {
            name: torch.cat([image.tensors[name] for image in images]).to(device)
            for name in images[0].tensors
            if name in self._takes
        }
        if "image_grid_thw" not in tensors:
            tensors = {name: tensor[None] for name, tensor in tensors.items()}  # a batch of one
        output = self._model.get_image_features(**tensors, return_dict=True)
        pooled = output.pooler_output
        self._pooled_list = not isinstance(pooled, Tensor)
        items = list(pooled) if self._pooled_list else list(pooled.split(1))
        self.encoded += len(items)
        deep = getattr(output, "deepstack_features", None) or []
        return _Features(items, [list(level) for level in deep])
