"""Makes torchvision importable beside a CPU build of torch.

The torchvision wheel of the package index is compiled for CUDA; next to a CPU torch its compiled
operators don't load, and its import then fails because it describes two operators (`nms`, `qnms`)
that nobody has declared. Declaring them is enough: vLLM needs torchvision's image transforms, which
are plain Python. A `.pth` file imports this module when the interpreter starts; the declaration
waits until torchvision is really imported, so that nothing else pays for importing torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[object] = []  # a library that is garbage-collected takes its schemas with it


class _BeforeTorchvision(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "DEF")
                for schema in SCHEMAS:
                    library.define(schema)
                _kept.append(library)
        return None  # the ordinary finders load the module


sys.meta_path.insert(0, _BeforeTorchvision())
