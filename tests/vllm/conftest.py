"""One vLLM for all tests against it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from joyvl_train import checkpoint
from joyvl_train.checkpoint import build_tiny, train_tokenizer
from joyvl_train.rendering import Renderer
from tests.vllm.served import ASKS, PYTHON, SAYS, SHAPE, healthy, taught


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that is served."""
    model, processor = build_tiny(train_tokenizer([*ASKS, *map(str, SAYS)] * 3, 512), SHAPE, 0)
    taught(Renderer(processor), model)
    folder = tmp_path_factory.mktemp("vllm") / "checkpoint"
    checkpoint.save(model, processor, folder)
    return folder


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[str]:
    """The base URL of a running vLLM that serves `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(folder), "--served-model-name", "tiny", "--dtype", "float32"),
        *("--host", "127.0.0.1", "--port", str(port), "--enforce-eager"),
        # A model that knows no JSON would fill its answer with spaces.
        *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
        *("--limit-mm-per-prompt", '{"image": 200, "video": 0}', "--max-model-len", "8192"),
    ]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",  # weights can be changed
        "DO_NOT_TRACK": "1",
    }
    environment.pop("PYTHONPATH", None)  # the training environment's packages are not vLLM's
    log = folder.parent / "vllm.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=folder.parent
        )
    try:
        deadline = time.monotonic() + 400
        while not healthy(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"vLLM did not start:\n{log.read_text()[-4000:]}")
            time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
