"""recipe=serve by its command line: what it refuses, and a server that is checked and ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from joyvl_train.cli import compose, main
from joyvl_train.run import Run
from recipes._sample import ASKED, sample
from recipes._serve_report import NAMES
from recipes.serve import address, remote, trained
from serve.client import Client
from serve.live import Live
from serve.openapi import EVENTS
from serve.source import Notice, Second
from tests.data_pipeline.agents.endpoint import Endpoint
from tests.serve.fake_vllm import fake_vllm, lives, pids
from tests.serve.lived import second
from tests.serve.test_faults import free_port

ROOT = Path(__file__).parents[2]
ALL = ("0.0.0.0", "0", "0.0", "::", "::0", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["serve.host=0.0.0.0"], "put a token into the variable JOYVL_TOKEN"),
        (["serve.engine=url"], "serve.urls is empty"),
        (["serve.engine=vllm", "serve.vllm_python=none"], "serve.vllm_python=none: is not there"),
        (["serve.videos=none"], "serve.videos=none: there is no such folder"),
        (["serve.background=[command]"], "serve.command is empty"),
        (["serve.background=[model]"], "agents.url is empty"),
        (["serve.background=[calculater]"], "Did you mean calculator"),
        (["serve.background=[client,search]"], "=[client,search]: what stands behind client"),
        (["serve.every=2", "data.codec=predictive"], "serve.every=2: data.codec=predictive tells"),
        (["serve.modules=[ocrr]"], "Did you mean ocr"),
        (["serve.mute=['(']"], "is no regular expression"),
        (["serve.port=99999"], "serve.port=99999: takes"),
        (["speech=endpoint"], "speech.url is empty"),
        (["speech.ears=wisper"], "speech.ears=wisper: takes"),
        (["speech.voice=program"], "none of espeak-ng, flite is installed"),
        (["serve.memory=all"], "serve.memory=all: takes"),
        (["data.frames_per_second=auto"], "live ones take a whole number"),
    ],
)
def test_bad_settings_get_a_line(given, told: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("JOYVL_TOKEN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    places = [f"run.dir={tmp_path / 'run'}", f"run.root={tmp_path}"]
    code = main(["recipe=serve", "setting=smoke", *places, *given], ROOT)
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and told in lines[-1] and "Traceback" not in "".join(lines)


def test_a_port_that_is_taken_is_found_before_the_model_is_loaded(tmp_path: Path, capsys) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        given = [f"run.dir={tmp_path / 'run'}", f"serve.port={port}"]
        assert main(["recipe=serve", "setting=smoke", *given], ROOT) == 2
    told = capsys.readouterr()
    line = f"error: serve.port={port}: address already in use; take another, or 0 for any free one"
    assert told.err.strip() == line and "starts from" not in told.out
    # Nothing was begun, and nothing is left.
    assert not (tmp_path / "run").exists()


def test_beyond_this_machine_the_server_has_a_name(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("JOYVL_TOKEN", "secret")
    places = [f"run.dir={tmp_path / 'run'}", f"run.root={tmp_path}"]
    for host in ALL:
        assert main(["recipe=serve", "setting=smoke", f"serve.host='{host}'", *places], ROOT) == 2
        assert f"serve.host={host}: serve.hosts is empty" in capsys.readouterr().err
    for host in ("192.0.2.1", "nowhere.invalid", "a..b", f"{'a' * 64}.invalid"):
        assert main(["recipe=serve", "setting=smoke", f"serve.host={host}", *places], ROOT) == 2
        assert f"serve.host={host}: is no address of this machine" in capsys.readouterr().err


@pytest.mark.parametrize("token", ["a/b", "YQ==", "a+b", "s p", "a,b", "\u00fc"])
def test_a_token_that_no_browser_can_send_is_refused(
    token: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("JOYVL_TOKEN", token)
    places = [f"run.dir={tmp_path / 'run'}", f"run.root={tmp_path}"]
    assert main(["recipe=serve", "setting=smoke", *places], ROOT) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "JOYVL_TOKEN: a browser can't send this token" in said and token not in said


def test_a_server_is_checked_and_tells_what_came_of_it(tmp_path: Path, capsys) -> None:
    places = [f"run.dir={tmp_path / 'run'}", f"run.root={tmp_path}"]
    assert main(["recipe=serve", "setting=smoke", *places], ROOT) == 0
    told = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert told["serve/events/step"] >= 3 and told["serve/sessions"] == 1
    assert (tmp_path / "run" / "finished").exists()
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Seconds answered" in report and "serve/" not in report
    # It was the base model that served: whoever starts it is told.
    assert "warning: this is a base model, which was never taught" in capsys.readouterr().out
    assert not list((tmp_path / "run").glob("artifacts/*"))


def test_events_have_names_in_the_report() -> None:
    assert set(NAMES) == set(EVENTS)


def test_models_that_were_never_taught_when_to_speak_are_known(tmp_path: Path) -> None:
    config = compose(ROOT, ["recipe=serve", f"run.dir={tmp_path / 'run'}"])
    run = Run(config, ROOT)
    assert not trained(config, run, ROOT / "models" / "tiny")
    assert trained(config, run, tmp_path / "elsewhere" / "checkpoint")
    for made, known in (("recipe: base", False), ("recipe: sft", True), ("[", True)):
        (tmp_path / "config.yaml").write_text(made)
        assert trained(config, run, tmp_path / "checkpoint") is known


def test_an_address_can_be_opened() -> None:
    assert address("127.0.0.1", 8700, []) == "http://127.0.0.1:8700"
    assert address("::1", 8700, []) == "http://[::1]:8700"
    for host in ALL:
        assert address(host, 80, ["door.example", "b"]) == "http://door.example:80"


def test_a_server_that_is_told_to_stop_ends_its_sessions(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "joyvl_train", "recipe=serve", "serve.port=0"]
    command += [f"run.dir={tmp_path / 'run'}", f"run.root={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JOYVL_TOKEN": "t"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    address = ""
    for line in iter(process.stdout.readline, b""):
        if b"listening on" in line:
            address = line.decode().split()[-1]
            break
    drain = threading.Thread(target=process.stdout.read, daemon=True)
    drain.start()

    async def follow() -> list[str]:
        async with Client(address, "t") as client:
            session = await client.open({"kind": "sample"})
            kinds = []
            async for event in session.events():
                kinds.append(event["kind"])
                if kinds.count("step") == 2:
                    process.send_signal(signal.SIGTERM)
            return kinds

    try:
        kinds = asyncio.run(asyncio.wait_for(follow(), 60))
        assert kinds[-1] == "closed" and kinds.count("step") >= 2
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_a_port_of_another_vllm_gets_a_line(tmp_path: Path, capsys) -> None:
    given = [f"run.dir={tmp_path / 'run'}", "serve.engine=vllm"]
    given += [f"serve.vllm_python={fake_vllm(tmp_path, 'answers once')}"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["recipe=serve", "setting=smoke", *given, f"serve.vllm_port={port}"], ROOT) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: serve.vllm_port={port}: ") and "take another" in line
    assert not pids(tmp_path)


def test_a_vllm_that_loads_ends_with_the_server(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "joyvl_train", "recipe=serve", "serve.engine=vllm"]
    command += [f"serve.vllm_python={fake_vllm(tmp_path, 'loads')}"]
    command += [f"serve.vllm_port={free_port()}", f"run.dir={tmp_path / 'run'}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            while not pids(tmp_path) and process.poll() is None:
                time.sleep(0.05)
            process.terminate()
            said = process.stdout.read().decode()
            assert process.wait(60) == 0 and "stopped while the model was starting" in said
            assert not lives(pids(tmp_path)[0])
        finally:
            process.kill()
            for pid in filter(lives, pids(tmp_path)):
                os.kill(pid, signal.SIGKILL)


def test_what_speaks_at_every_request_is_quiet(tmp_path: Path) -> None:
    loggers = [logging.getLogger(name) for name in ("httpx", "aioice", "aiortc")]
    for each in loggers:
        each.setLevel(logging.NOTSET)
    given = [f"run.dir={tmp_path / 'run'}", "serve.engine=vllm", "serve.vllm_python=/bin/false"]
    assert main(["recipe=serve", "setting=smoke", *given], ROOT) == 2
    assert [each.level for each in loggers] == 3 * [logging.WARNING]


def test_why_an_endpoint_gives_no_answer_is_told() -> None:
    async def main() -> list[tuple[str, str]]:
        config = compose(ROOT, ["recipe=serve", "serve.key_variable=NO_KEY"])
        async with AsyncExitStack() as stack:
            live = Live("a", await remote(config, endpoint.url, stack))
            await live.step(second(0))
            await live.close()
        return [(e["kind"], e["error"]) for e in live.log.after(0) if "error" in e]

    with Endpoint((401, {"error": {"message": "this key is not known"}})) as endpoint:
        ((kind, error),) = asyncio.run(main())
    assert kind == "engine" and "this key is not known" in error and "NO_KEY" in error


def test_the_sample_goes_on_and_on_and_can_be_stopped() -> None:
    stop = threading.Event()
    items = sample(stop, side=48, paced=False)
    assert isinstance(next(items), Notice)
    seconds = [item for item, _ in zip(items, range(90), strict=False)]
    assert [s.second for s in seconds if isinstance(s, Second)] == list(range(90))
    assert [s.queries for s in seconds if isinstance(s, Second) and s.queries] == [(ASKED,)]
    stop.set()
    assert next(items, None) is None
