"""What holds for every test: few threads, no network, no files left outside temporary folders."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"

import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.bad_places import Place

# A shell that starts the tests in the background has Ctrl-C ignored, and children take that over.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, and no clock: a loaded machine changes no result.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums of several threads come in another order: what is compared bit by bit runs on one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder."""
    from joyvl_train import checkpoint
    from tests.tiny_training import tiny

    folder = tmp_path_factory.mktemp("model") / "tiny"
    checkpoint.save(*tiny(), folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Place]":
    """An empty folder to run in, one process, and the limits put back."""
    import torch

    from tests.bad_places import Place

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    threads, limits = torch.get_num_threads(), resource.getrlimit(resource.RLIMIT_FSIZE)
    yield Place(folder, model, monkeypatch)
    torch.set_num_threads(threads)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
