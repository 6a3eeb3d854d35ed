"""A record's history is found wherever the run lies, and says no more than was done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_pipeline.balance import Targets
from data_pipeline.find_record import history_of
from data_pipeline.parts import Local, run_parts
from data_pipeline.plan import make_plan
from data_pipeline.settle import settle
from data_pipeline.work import StageWork, Workshop
from data_pipeline.write import finish, writing
from joyvl_train.config import UserError
from tests.data_pipeline.made_corpus import candidate, frames


def shop() -> Workshop:
    return Workshop((), frames)


def open_frames():
    return frames


def made(folder: Path) -> str:
    """A corpus of two records; the id of one."""
    items = [candidate(1), candidate(2, question="Where?", video="videos/2.mp4")]
    plan = make_plan(items, folder / "plan", 1, "two")
    work = StageWork(plan, folder / "work", shop, "none")
    run_parts(plan.sizes, work, Local(), folder / "work", progress=False)
    settled = settle(work, folder / "chosen", Targets())
    admission = writing(settled, folder / "corpus", folder / "rejects", open_frames, "s")
    run_parts(plan.sizes, admission, Local(), folder / "rejects", progress=False)
    finish(admission)
    return items[1].id


@pytest.mark.parametrize("name", ["run", "work/run", "homework/records/run"])
def test_an_admitted_record_is_found_in_its_shard(tmp_path: Path, name: str) -> None:
    id = made(tmp_path / name)
    told = history_of(id, tmp_path / name)
    assert told.startswith(f"{id}: admitted\n") and "shard-00001.parquet record 0" in told


@pytest.mark.parametrize("name", ["run", "records/run"])
def test_a_record_that_is_not_written_yet_is_not_called_admitted(tmp_path: Path, name: str) -> None:
    run = tmp_path / name
    id = made(run)
    shutil.rmtree(run / "corpus")
    assert history_of(id, run).startswith(f"{id}: open\n")
    shutil.rmtree(run / "work")
    told = history_of(id[:8], run)
    assert told.startswith(f"{id}: open\n") and "not worked on yet" in told


def test_what_names_no_record_is_said_so(tmp_path: Path) -> None:
    id = made(tmp_path)
    for wrong in ("nothing", id[:3]):
        with pytest.raises(UserError, match="holds no such record"):
            history_of(wrong, tmp_path)
