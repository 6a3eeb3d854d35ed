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

    # Threads that spin while they wait make a shared machine many times slower; read by the OpenMP
    # runtime when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from joyvl_train.cli import main

    return main(sys.argv[1:], root)


if __name__ == "__main__":
    sys.exit(_start())
