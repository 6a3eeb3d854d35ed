"""Features of a frozen tower on disk: found again, whole or absent, within their space."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from joyvl_train.config import EngineConfig, TrainConfig, UserError
from joyvl_train.frozen_vision import FeatureFiles, FrozenVision
from joyvl_train.parts import freeze
from joyvl_train.training import fit
from tests.tiny_training import ROOT, parts, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


def frozen() -> tuple[Any, Any]:
    model, processor = tiny()
    freeze(model, ["vision", "projector"])
    return model, processor


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("the tower was called again")


def features(model: Any, images: Any, folder: Path) -> tuple[list[torch.Tensor], int]:
    """(the features of `images`, how many went through the tower) with an empty memory."""
    vision = FrozenVision(model, 1 << 20, FeatureFiles(folder, 1 << 30))
    found = vision(model, images, vision.keys(images))
    return [*found.pooler_output, *found.deepstack_features[0]], vision.encoded


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return len(found) == len(wanted) and all(map(torch.equal, found, wanted))


def test_a_second_pass_reads_what_the_first_computed(tmp_path: Path) -> None:
    model, processor = frozen()
    images = parts(processor)[0].source.render(0)[0].images
    wanted, encoded = features(model, images, tmp_path)
    assert encoded == len(files(tmp_path)) > 0
    model.model.visual.forward = refuse
    found, encoded = features(model, images, tmp_path)
    assert encoded == 0
    assert same(found, wanted)


def test_another_tower_or_arithmetic_has_its_own(tmp_path: Path) -> None:
    model, processor = frozen()
    images = parts(processor)[0].source.render(0)[0].images
    _, encoded = features(model, images, tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        assert features(model, images, tmp_path)[1] == encoded
    with torch.no_grad():
        next(model.model.visual.parameters()).add_(1e-3)
    assert features(model, images, tmp_path)[1] == encoded
    assert len(files(tmp_path)) == 3 * encoded


def test_a_torn_file_is_computed_anew(tmp_path: Path) -> None:
    model, processor = frozen()
    images = parts(processor)[0].source.render(0)[0].images
    wanted, _ = features(model, images, tmp_path)
    for path, length in zip(files(tmp_path), (0, 20, 900), strict=False):
        assert path.stat().st_size > length
        os.truncate(path, length)
    found, encoded = features(model, images, tmp_path)
    assert encoded == min(3, len(files(tmp_path)))
    assert same(found, wanted)
    assert features(model, images, tmp_path)[1] == 0


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from joyvl_train.frozen_vision import FeatureFiles
replace, left = os.replace, [2]
def last(*paths):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    replace(*paths)
os.replace = last
files = FeatureFiles(Path(sys.argv[1]), 1 << 20)
for number in range(5):
    files.put(f"tower/{number}", [torch.full((3,), float(number))])
"""


def test_a_kill_half_way_leaves_whole_files(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL
    [partial] = tmp_path.rglob("*.partial")
    kept = FeatureFiles(tmp_path, 1 << 20)
    assert partial.exists()  # it may be that of a process still at work
    for number in range(2):
        [tensor] = kept.get(f"tower/{number}") or []
        assert torch.equal(tensor, torch.full((3,), float(number)))
    assert kept.get("tower/2") is None
    kept.put("tower/2", [torch.ones(1)])
    assert kept.get("tower/2") == [torch.ones(1)]
    old = time.time() - 7200
    os.utime(partial, (old, old))
    FeatureFiles(tmp_path, 1 << 20)
    assert not partial.exists()
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize("writers", [1, 3])
def test_space_is_bounded_whoever_writes(tmp_path: Path, writers: int) -> None:
    space = 64 * 1024
    kept = [FeatureFiles(tmp_path, space) for _ in range(writers)]
    for number in range(300):
        kept[number % writers].put(f"tower/{number}", [torch.zeros(100)])
    used = sum(path.stat().st_size for path in files(tmp_path))
    assert 0.8 * space < used <= space + (writers - 1) * space // 64
    assert kept[0].get("tower/0") is not None
    assert kept[0].get("tower/299") is None
    # Who comes later, and finds it full, adds nothing.
    late = FeatureFiles(tmp_path, space)
    late.put("tower/late", [torch.zeros(1000)])
    assert late.get("tower/late") is None


def test_a_full_disk_ends_the_writing_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = FeatureFiles(tmp_path, 1 << 30)
    kept.put("first", [torch.ones(4)])
    whole = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        whole(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    kept.put("second", [torch.ones(4)])
    monkeypatch.undo()
    kept.put("third", [torch.ones(4)])
    assert [path.name for path in files(tmp_path)] == ["first"]
    assert kept.get("first") is not None and kept.get("second") is None


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"train.vision_cache=.*file.*vision_cache_gib=0"):
        FeatureFiles(tmp_path / "file" / "below", 1)


def trained(folder: Path, cache: str, model: Any, processor: Any) -> list[float]:
    lines: list[Any] = []
    train = TrainConfig(
        steps=3,
        row_tokens=320,
        precision="fp32",
        save_every=0,
        log_every=1,
        vision_cache=cache,
    )
    sources = parts(processor)
    fit(model, sources, train, EngineConfig(), folder, seed=3, log=lines.append)
    return [line["train/loss"] for line in lines]


def test_runs_share_a_configured_folder_and_drop_their_own(tmp_path: Path) -> None:
    cache = tmp_path / "features"
    wanted = trained(tmp_path / "own", "", *frozen())
    assert not (tmp_path / "own" / "vision").exists()
    assert trained(tmp_path / "first", str(cache), *frozen()) == wanted
    assert len(files(cache)) > 5
    model, processor = frozen()
    model.model.visual.forward = refuse
    assert trained(tmp_path / "second", str(cache), model, processor) == wanted
