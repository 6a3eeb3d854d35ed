"""The agents' server, a worker and the run itself are killed: the same bytes in the end, and what
was paid is told."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from data_pipeline.agents.agent import Agent
from data_pipeline.agents.asking import each_asked
from data_pipeline.agents.prompts import load
from data_pipeline.balance import Targets
from data_pipeline.candidates import Candidate
from data_pipeline.parts import Local, run_parts
from data_pipeline.plan import make_plan
from data_pipeline.settle import settle
from data_pipeline.work import StageWork, Workshop
from data_pipeline.write import finish, writing
from joyvl_train.cli import main
from joyvl_train.llm import Client, Endpoint
from tests.data_pipeline.agents.mortal_server import TOKENS, Mortal
from tests.data_pipeline.made_corpus import files, frames, source

ROOT = Path(__file__).resolve().parents[2]
CONCURRENCY = 4
COUNT = 480

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@dataclass
class Asking:
    """A workshop whose one agent is asked twice about each candidate."""

    url: str
    cache: Path
    retries: int

    def __call__(self) -> Workshop:
        endpoint = Endpoint(self.url, "m", "NO_KEY")
        client = Client(
            endpoint,
            cache=self.cache,
            concurrency=CONCURRENCY,
            retries=self.retries,
            backoff=0.05,
        )
        agent = Agent(load("dense_precheck"), client)

        async def judge(candidate: Candidate) -> Candidate:
            for target in [event.text for event in candidate.timeline.events]:
                verdict = await agent.judge({"target": f"{target} {candidate.id}"})
                if not verdict.yes:
                    return candidate.rejected("judge", "no", verdict.reason, agent.key)
            return candidate.kept("judge", agent=agent.key)

        def watch(note) -> None:
            agent.after = note

        stage = lambda flow: each_asked("judge", judge, flow, 8)  # noqa: E731
        return Workshop((stage,), frames, lambda: {agent.name: agent.counts()}, watch)


def open_frames():
    return frames


def made(folder: Path, url: str, count: int, workers: int = 1, retries: int = 12) -> StageWork:
    """A corpus that agents at `url` have judged, or what is missing of it."""
    plan = make_plan(source(count), folder / "plan", 20, f"made {count}")
    shop = Asking(url, folder / "answers", retries)
    work = StageWork(plan, folder / "work", shop, "judge 1")
    run_parts(plan.sizes, work, Local(workers), folder / "work", progress=False)
    done = settle(work, folder / "chosen", Targets())
    admission = writing(done, folder / "corpus", folder / "rejects", open_frames, "as they are")
    run_parts(plan.sizes, admission, Local(workers), folder / "rejects", progress=False)
    finish(admission)
    return work


def whole(folder: Path) -> dict[str, bytes]:
    found = files(folder, "costs", "failed", "answers")
    assert len(found) > 20
    return found


def test_a_server_that_dies_twenty_times_is_waited_for(tmp_path: Path) -> None:
    with Mortal() as server:
        unbroken = made(tmp_path / "unbroken", server.url, 120)
    rng = random.Random(4)
    deaths = [rng.randint(1, 8) for _ in range(20)]
    pauses = [rng.choice((0.0, 0.1, 0.4)) for _ in range(20)]
    with Mortal(deaths, pauses) as server:
        work = made(tmp_path / "killed", server.url, 120)
        assert server.deaths == 20
    assert whole(tmp_path / "killed") == whole(tmp_path / "unbroken")
    reasons = {c.reason for part in range(len(work.plan.parts)) for c in work.of(part)}
    assert reasons == {"", "no", "unsure"}  # nothing was written off
    (spent,), (plain,) = work.spent().values(), unbroken.spent().values()
    assert spent["tokens"] == plain["tokens"] and spent["calls"] >= plain["calls"] + 20


SCRIPT = """
import sys
from pathlib import Path
from joyvl_train.config import UserError
from tests.data_pipeline.test_agent_kills import COUNT, made

if __name__ == "__main__":
    try:
        made(Path(sys.argv[1]), sys.argv[2], COUNT, workers=2, retries=2)
    except UserError as error:
        sys.exit(f"error: {error}")
"""


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    own = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    found = []
    for child in own.read_text().split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(int(child))
    return found


def drawn_kills(rng: random.Random) -> list[str]:
    """Twenty kills. No two workers running: a part whose worker dies twice has failed."""
    while True:
        kinds = ["run", "worker", "server"] * 6 + ["run", "server"]
        rng.shuffle(kinds)
        if ("worker", "worker") not in pairwise(kinds):
            return kinds


def test_twenty_kills_of_run_worker_and_server_leave_the_same_bytes(tmp_path: Path) -> None:
    """At moments drawn by chance; the server stays dead until the run has ended."""
    with Mortal() as server:
        made(tmp_path / "unbroken", server.url, COUNT)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "killed"
    rng = random.Random(7)
    kinds = drawn_kills(rng)
    killed = Counter[str]()
    with Mortal() as server:
        command = [sys.executable, str(script), str(folder), server.url]

        def start() -> subprocess.Popen[str]:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=subprocess.PIPE,
                text=True,
            )

        process = start()
        for number, kind in enumerate(kinds):
            assert server.wait_for(rng.randint(4, 24)), f"{number} {kind}: {process.poll()}"
            if kind == "worker":  # its part is begun again, by another
                for child in workers_of(process)[:1]:
                    os.kill(child, signal.SIGKILL)
                    killed[kind] += 1
                continue
            if kind == "run":
                process.send_signal(signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL
            else:
                server.kill()
                assert process.wait(60) == 1
                assert process.stderr is not None
                error = process.stderr.read()
                assert error.count("\n") == 1 and "nobody is there to ask" in error
                server.begin()
            killed[kind] += 1
            process = start()
        assert process.wait(120) == 0
        work = made(folder, server.url, COUNT)  # does nothing again
        served = server.served
    assert killed == Counter(kinds)
    assert whole(folder) == whole(tmp_path / "unbroken")
    answers = sum(1 for _ in (folder / "answers").rglob("*.json"))
    (spent,) = work.spent().values()
    paid = spent["tokens"] / TOKENS
    # A kill takes along what was under way in both workers, and no more.
    assert max(answers, served) - len(kinds) * 2 * CONCURRENCY <= paid <= served


def test_a_run_whose_server_is_gone_ends_in_a_line_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["recipe=corpus", "setting=smoke", "source.streams=6", "agents.model=m"]
    given += [f"run.root={tmp_path / 'outputs'}", "agents.retries=1", "data.size=64"]

    def run(name: str, url: str) -> int:
        places = [f"run.dir={tmp_path / name}", f"agents.cache={tmp_path / name}-answers"]
        return main([*given, *places, f"agents.url={url}"], ROOT)

    def shards(name: str) -> dict[str, bytes]:
        folder = tmp_path / name / "corpus"
        return {path.name: path.read_bytes() for path in folder.glob("[!R]*")}

    with Mortal() as server:
        assert run("unbroken", server.url) == 0
        asked = server.served
    with Mortal([asked // 2], [None]) as server:
        capsys.readouterr()
        assert run("killed", server.url) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(error) == 1 and "nobody is there to ask; see to the endpoint" in error[0]
        assert asked // 2 <= server.served < asked
    with Mortal() as server:  # at another address
        assert run("killed", server.url) == 0
        assert 0 < server.served < asked
    assert shards("killed") == shards("unbroken") and len(shards("killed")) > 1
    costs = [
        json.loads((tmp_path / name / "metrics.json").read_text())["agents/tokens"]
        for name in ("unbroken", "killed")
    ]
    assert costs[0] == costs[1] == asked * TOKENS
