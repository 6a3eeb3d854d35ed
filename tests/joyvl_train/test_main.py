from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Large tensors are taken where a recipe would take them: inside of `main`.
FAULTS = """
import resource, sys
import joyvl_train.cli
from joyvl_train.__main__ import _start

def main(arguments, root):
    import torch
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(8 << 20).fill_(1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return 0

joyvl_train.cli.main = main
sys.exit(_start())
"""


def huge_pages() -> str:
    try:
        return Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "[never]"


@pytest.mark.skipif("[madvise]" not in huge_pages(), reason="huge pages only where asked for")
def test_tensors_of_a_run_lie_in_huge_pages_unless_told_otherwise() -> None:
    kept = {name: text for name, text in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    found = []
    for told in ({}, {"THP_MEM_ALLOC_ENABLE": "0"}):
        command = [sys.executable, "-c", FAULTS]
        done = subprocess.run(command, env={**kept, **told}, capture_output=True, check=True)
        found.append(int(done.stdout))
    # 32 MiB are 8,192 pages of 4 KiB; torch's own code takes some hundreds as well.
    assert found[0] < 4096 < 8192 <= found[1]
