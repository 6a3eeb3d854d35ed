"""What serve.background makes of its names: each is asked in the order that is given."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from joyvl_train.background import Task
from joyvl_train.cli import compose
from recipes._background import check_background, solver_of
from serve.events import EventLog
from tests.data_pipeline.agents.endpoint import Endpoint

ROOT = Path(__file__).parents[2]
SUM, OTHER = "What is 345 times 12?", "Who is that?"


@pytest.fixture(autouse=True)
def _its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # answers of a model are kept below it


def digest(url: str, background: str, question: str, command: str = "echo by command") -> str:
    """What a task comes to; the client of its session answers at once, where it is asked."""

    async def main() -> str:
        words = command.replace(" ", ",")
        given = [f"serve.background={background}", f"serve.command=[{words}]", f"agents.url={url}"]
        config = compose(ROOT, ["recipe=serve", *given, "agents.model=m"])
        check_background(config)
        log = EventLog()
        async with solver_of(config) as solver:
            assert solver is not None
            solving = asyncio.create_task(solver(log).solve(Task(1, 5, "", question)))
            while not solving.done():
                if any(event["kind"] == "asked" for event in log.after(0)):
                    solving.cancel()
                    return "by the client"
                await asyncio.sleep(0.01)
            return solving.result().digest

    return asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize(
    ("background", "question", "found"),
    [
        ("[calculator,model]", SUM, "345 times 12 is 4140."),
        ("[model,calculator]", SUM, "by the model"),
        ("[calculator,model,command]", OTHER, "by the model"),
        ("[calculator,command,search,model]", OTHER, "by command"),
        ("[search,calculator,client]", SUM, "345 times 12 is 4140."),
        ("[calculator,client]", OTHER, "by the client"),
        ("[model,client]", OTHER, "by the model"),
    ],
)
def test_the_first_that_has_an_answer_gives_it(background: str, question: str, found: str) -> None:
    with Endpoint("by the model") as endpoint:
        assert digest(endpoint.url, background, question) == found


def test_what_fails_is_followed_by_the_next() -> None:
    with Endpoint((400, {"error": {"message": "no"}})) as endpoint:
        assert digest(endpoint.url, "[model,command]", SUM) == "by command"
        assert digest(endpoint.url, "[command,calculator]", SUM, "false") == "345 times 12 is 4140."
