"""Vision features of a tower that is not trained: computed once a frame, in memory and on disk.

A frame is known by the content of its tensors, so that it is found again in another sample, epoch
or chunk. Features are computed in groups of one fixed size: what a frame's features are, to the
last bit, does not depend on which frames happened to be missing beside it.
"""

from __future__ import annotations

import errno
import hashlib
import inspect
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from joyvl_train.config import UserError

_GROUP = 8
_STALE = 3600.0
"""Seconds after which a half-written file is one that a killed process left."""


def can_reuse(model: Any) -> bool:
    """Whether `model` (a transformers one) takes vision features, frame by frame, for pictures."""
    takes = inspect.signature(model.model.forward).parameters
    return "mm_encoder_outputs" in takes and hasattr(model.model, "visual")


def is_frozen(model: Any) -> bool:
    """Whether neither the tower nor the projector of `model` is trained, and it `can_reuse`."""
    return can_reuse(model) and not any(p.requires_grad for p in model.model.visual.parameters())


class FeatureFiles:
    """Features on disk, a file a frame, for every process that names the same `folder`.

    A file is written under a name of its writer's own and renamed, so that it is whole or absent.
    `space` bounds the bytes: once they are there, nothing is added. (An epoch that does not fit
    still finds what is there; were the oldest dropped, it would find nothing.) A writer claims a
    64th of the space at a time, so each beside the first may go that much above it.
    """

    def __init__(self, folder: Path, space: int) -> None:
        self._folder = folder
        self._space = space
        self._claimed = 0
        self._full = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, facts in _files_in(folder):
                if path.endswith(".partial") and time.time() - facts.st_mtime > _STALE:
                    Path(path).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"train.vision_cache={folder}: can't be written ({error.strerror}); name another "
                "folder, or set train.vision_cache_gib=0"
            ) from error

    def get(self, name: str) -> list[Tensor] | None:
        """The tensors under `name`; None where there are none, or torn ones."""
        try:
            found = safetensors.torch.load((self._folder / name).read_bytes())
        except (FileNotFoundError, SafetensorError):
            return None
        return [found[str(at)] for at in range(len(found))]

    def put(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Keep `tensors` under `name`, where there is space."""
        data = safetensors.torch.save({str(at): tensor for at, tensor in enumerate(tensors)})
        if self._claimed < len(data) and not self._full:
            used = sum(facts.st_size for _, facts in _files_in(self._folder))
            self._claimed = min(self._space - used, max(self._space // 64, 1))
            self._full = self._claimed < len(data)
        if self._full:
            return
        path = self._folder / name
        partial = path.with_name(f"{path.name}.{os.uname().nodename}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            os.replace(partial, path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            # A smaller disk than was allowed for: what is there serves, and training goes on.
            self._full = True
            partial.unlink(missing_ok=True)
            return
        self._claimed -= len(data)


def _files_in(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                yield path, os.stat(path)
            except FileNotFoundError:  # another process renamed it
                continue


class FrozenVision:
    """The features of a frozen tower's images, the newest `kept` bytes of them kept in memory.

    What memory lacks is looked up in `files` and then computed; what is computed goes there too.
    `encoded` counts the images that went through the tower. Raises `UserError` where the model's
    architecture has no place for features computed before, or where the tower is trained.
    """

    def __init__(self, model: Any, kept: int, files: FeatureFiles | None = None) -> None:
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
        self._files = files
        self._tower = ""
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
            if key not in self._memory and not self._read(model, key):
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

    def _keep(self, key: bytes, levels: list[Tensor]) -> None:
        self._memory[key] = levels
        self._bytes += sum(level.nbytes for level in levels)

    def _read(self, model: Any, key: bytes) -> bool:
        levels = self._files.get(self._name(model, key)) if self._files is not None else None
        if levels is not None:
            self._keep(key, levels)
        return levels is not None

    def _name(self, model: Any, key: bytes) -> str:
        self._tower = self._tower or _tower_of(model)
        return f"{self._tower}/{key.hex()[:2]}/{key.hex()}"

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
                levels = [level[at] for level in (output.pooler_output, *deep)]
                self._keep(key, [level.detach().cpu().clone() for level in levels])
                if self._files is not None:
                    self._files.put(self._name(model, key), self._memory[key])
            self.encoded += len(group)


def _tower_of(model: Any) -> str:
    """A name for all that features follow from beside the pixels: weights, shape, arithmetic."""
    visual = model.model.visual
    device = model.device.type
    arithmetic = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    facts = (visual.config.to_dict(), device, arithmetic, torch.__version__, _GROUP)
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
    for name, tensor in visual.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _frames(images: Mapping[str, Tensor]) -> list[tuple[Tensor, tuple[int, ...]]]:
    grids = [tuple(grid) for grid in images["image_grid_thw"].tolist()]
    pixels = torch.split(images["pixel_values"], [t * h * w for t, h, w in grids])
    return list(zip(pixels, grids, strict=True))
