"""`python -m joyvl_train recipe=sft data.seed=3` from a checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def _start() -> int:
    root = Path(__file__).resolve().parents[1]
    if not (root / "configs" / "run.yaml").is_file():
        print(
            f"error: {root / 'configs'}: no configs there; recipes run from a checkout of the "
            "repository, installed with `pip install -e .`",
            file=sys.stderr,
        )
        return 2
    # The recipes and the folders beside them are not installed; spawned workers need them too.
    sys.path[:] = [str(root), *(entry for entry in sys.path if entry != str(root))]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [entry for entry in inherited if entry and entry != str(root)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *others])

    # Read by the OpenMP runtime when torch is imported. Threads that sleep at once make a
    # step of training half as long again; threads that spin for long, as by default, take the core
    # from what prepares the data.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")

    # Read by torch when it first takes memory. A step of training on a CPU takes its large tensors
    # from the system anew; where page faults are dear, those of 4 KiB cost up to a third of the
    # step.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

    from joyvl_train.cli import main

    return main(sys.argv[1:], root)


if __name__ == "__main__":
    sys.exit(_start())
