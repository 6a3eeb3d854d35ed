from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from joyvl_train.host_memory import keep_freed_memory

assert sys.argv[1] != "kept" or keep_freed_memory()
np.ones(4 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    np.ones(4 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's malloc")
def test_memory_that_was_freed_is_not_faulted_in_again() -> None:
    found = {}
    for how in ("kept", "given back"):
        command = [sys.executable, "-c", FAULTS, how]
        found[how] = int(subprocess.run(command, capture_output=True, check=True).stdout)
    # 32 MiB are 8,192 pages, or 16 where the system hands out huge ones.
    assert found["kept"] <= 10 and found["given back"] >= 8 * 16
