"""The ranks of a run: which one writes, and where they wait for one another."""

from __future__ import annotations

import os
import time
from typing import Any

import torch.distributed as dist

_LETTING_GO = 0.3  # seconds; without the interpreter's lock


def is_first() -> bool:
    """Whether this is the rank that writes files."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Returns once every rank is here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def of_all(value: Any) -> list[Any]:
    """Every rank's `value`, rank by rank. All ranks call it."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def leave_others() -> None:
    """Ends the group of ranks, once every rank is here; from now on each works by itself.

    A group that is still there when the interpreter ends can abort the process: its threads let go
    of tensors, for which they need an interpreter. Where a wrapped model still holds the group,
    destroying it ends no thread; what those hold goes a moment after the last call has returned.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
        time.sleep(_LETTING_GO)
