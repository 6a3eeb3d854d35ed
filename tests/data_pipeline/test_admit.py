"""What stays and what doesn't, from a source to plain shards."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.admit import Admission
from data_pipeline.balance import Targets
from data_pipeline.candidates import Candidate, Refused
from data_pipeline.parts import Local, run_parts
from data_pipeline.plan import make_plan
from data_pipeline.settle import settle
from data_pipeline.work import StageWork
from tests.data_pipeline.made_corpus import PlainShards, SlowShop, files, source

TARGETS = Targets(languages={"en": 0.3}, tolerance=0.05)


def made(folder: Path, count: int, per_part: int, workers: int = 1, wait: float = 0.0) -> Admission:
    """A corpus of `count` items, or what is missing of it."""
    plan = make_plan(source(count), folder / "plan", per_part, f"made {count}")
    work = StageWork(plan, folder / "work", SlowShop(wait), "judge 1")
    run_parts(plan.sizes, work, Local(workers), folder / "work", progress=False)
    done = settle(work, folder / "chosen", TARGETS)
    shards = PlainShards(folder / "shards", wait)
    admission = Admission(done, folder / "rejects", shards, "plain")
    run_parts(plan.sizes, admission, Local(workers), folder / "rejects", progress=False)
    return admission


def admitted(folder: Path) -> list[dict]:
    paths = sorted((folder / "shards").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_every_item_is_admitted_or_kept_with_a_reason(tmp_path):
    admission = made(tmp_path, 400, 60)
    written = [data["id"] for data in admitted(tmp_path)]
    parts = range(len(admission.settled.work.plan.parts))
    rejected = [each for part in parts for each in admission.rejected(part)]
    refused = (tmp_path / "plan/refused.jsonl").read_text().splitlines()
    assert len(written) + len(rejected) + len(refused) == 400
    ids = [*written, *(each.id for each in rejected)]
    assert len(set(ids)) == len(ids)
    made_ids = Counter(each.id for each in source(400) if not isinstance(each, Refused))
    assert set(ids) <= set(made_ids)
    assert all(each.reason for each in rejected)
    reasons = Counter(each.reason for each in rejected)
    for reason in ("not seen", "no answer", "near-same clip", "balance", "past the end"):
        assert reasons[reason], reason

    funnel = admission.funnel()
    assert funnel.read == 400 == funnel.status.total()
    assert funnel.status["open"] == len(written) == funnel.whole.clips
    assert funnel.status["refused"] == len(refused)
    counts = funnel.stages
    assert list(counts) == ["judge", "settle", "write"]
    assert counts["settle"].rejected == {
        reason: reasons[reason] for reason in ("near-same clip", "balance")
    }
    assert counts["write"].rejected == {"past the end": reasons["past the end"]}


def test_the_same_bytes_whatever_the_number_of_workers(tmp_path):
    for workers in (1, 2):
        made(tmp_path / str(workers), 150, 30, workers)
    one, two = (files(tmp_path / name, "costs", "failed") for name in "12")
    assert one == two and len(one) > 20


def test_a_finished_corpus_is_left_as_it_is(tmp_path):
    made(tmp_path, 150, 30)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    made(tmp_path, 150, 30)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_shard_that_is_lost_is_written_again(tmp_path):
    admission = made(tmp_path, 150, 30)
    before = files(tmp_path, "costs", "failed")
    (tmp_path / "shards/shard-00002.jsonl").unlink()
    assert [admission.done(part) for part in (1, 2)] == [True, False]
    made(tmp_path, 150, 30)
    assert files(tmp_path, "costs", "failed") == before


def forgets(part: int, candidates: object) -> list[Candidate]:
    return []


def test_shards_that_forget_a_candidate_are_a_bug(tmp_path):
    admission = made(tmp_path, 60, 30)
    admission.write = forgets  # type: ignore[assignment]
    with pytest.raises(ValueError, match="part 0: 0 candidates of"):
        admission(0, lambda count: None)
