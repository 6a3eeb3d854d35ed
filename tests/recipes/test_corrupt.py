"""A corpus of which a known share is damaged on purpose, through the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipeline import verify
from data_pipeline.agents.agent import Agent
from data_pipeline.agents.asking import wait_for
from data_pipeline.agents.prompts import load
from data_pipeline.candidates import CORRUPTION, Candidate
from data_pipeline.corruption import KINDS
from data_pipeline.desk import Desk
from data_pipeline.families import chained
from data_pipeline.world.streams import WorldFrames
from joyvl_train.cli import compose, main
from joyvl_train.corpus import open_corpus
from joyvl_train.records import StreamLabels
from recipes import _corpus as own
from tests.data_pipeline.agents.endpoint import YES, Endpoint, client

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


def made(folder: Path, *overrides: str) -> dict[str, float]:
    """The figures of a small corpus of the world in this folder."""
    places = [f"run.dir={folder}", f"run.root={folder.parent / 'outputs'}"]
    assert (
        main(["recipe=corpus", "setting=smoke", "source.streams=20", *places, *overrides], ROOT)
        == 0
    )
    return dict(json.loads((folder / "metrics.json").read_text()))


def records(folder: Path) -> dict[str, StreamLabels]:
    """What was admitted, by the clip."""
    found = [record[0] for record in open_corpus(folder / "corpus")]  # type: ignore[index]
    return {labels.timeline.clip.id: labels for labels in found}


def damage_of(labels: StreamLabels) -> list[str]:
    return [note["detail"] for note in labels.history if note["stage"] == CORRUPTION]


def test_what_is_damaged_is_told_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    assert "corpus/damaged" not in made(tmp_path / "clean", "corpus.verify=off")
    figures = made(tmp_path / "hurt", "corpus.verify=off", "source.corrupt=0.3")
    assert figures["corpus/damaged"] == figures["corpus/damaged/admitted"] == 6
    assert figures["corpus/admitted"] == 20
    clean, hurt = records(tmp_path / "clean"), records(tmp_path / "hurt")
    assert clean.keys() == hurt.keys()
    wrong = [clip for clip in hurt if hurt[clip].timeline != clean[clip].timeline]
    assert len(wrong) == 6 and wrong == [clip for clip in hurt if damage_of(hurt[clip])]
    for clip in wrong:
        kind, _, what = damage_of(hurt[clip])[0].partition(": ")
        assert kind in KINDS and what
        assert hurt[clip].id != clean[clip].id
    card = (tmp_path / "hurt" / "corpus" / "README.md").read_text()
    assert "6 clips were damaged on purpose" in card and "(`source.corrupt=0.3`)" in card
    assert "6 of them are among these" in card and "labels are exact" not in card
    assert "labels are exact" in (tmp_path / "clean" / "corpus" / "README.md").read_text()
    kinds = {damage_of(hurt[clip])[0].partition(":")[0] for clip in wrong}
    assert all(f"| {kind} |" in card for kind in kinds)


def test_verification_leaves_damaged_clips_out_and_counts_them(tmp_path: Path) -> None:
    figures = made(tmp_path / "run", "source.corrupt=1", "data.families=[qa,delegation]")
    rejects = [
        json.loads(line)
        for path in (tmp_path / "run" / "rejects").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    hurt = [r for r in rejects if any(note["stage"] == CORRUPTION for note in r["history"])]
    assert figures["corpus/damaged"] - figures["corpus/damaged/admitted"] == len(hurt) > 0
    assert all(one["history"][-1]["stage"] == "rules" for one in hurt)


def test_other_seeds_damage_other_things_and_equal_ones_the_same() -> None:
    def candidates(*overrides: str) -> list[Any]:
        given = ["recipe=corpus", "source.streams=10", "source.corrupt=0.5", *overrides]
        return list(own.read(compose(ROOT, given)))

    first = candidates()
    assert first == candidates() and first != candidates("seed=1")
    assert sum(bool(one.damage) for one in first) == 5


def test_a_verifier_is_told_nothing_of_the_damage() -> None:
    """What it is asked about a damaged clip is what it is asked where nobody knows."""
    config = compose(
        ROOT, ["recipe=corpus", "source.streams=8", "source.corrupt=1", "data.size=64"]
    )
    candidates = [one for one in own.read(config) if isinstance(one, Candidate)]
    known = [one for one in candidates if one.damage][:3]
    bare = [replace(one, id=f"{n}", work={}, history=()) for n, one in enumerate(known)]
    asked = []
    for each in (known, bare):
        with Endpoint(YES) as endpoint:
            asking = client(endpoint)
            names = ("local_verifier", "global_verifier")
            agents = {name: Agent(load(name), asking) for name in names}
            desk = Desk(lambda timeline: WorldFrames(timeline, 64), agents, window=1)
            list(chained(verify.stages(desk)[1:], iter(each)))  # all but the rules: those reject
            wait_for(asking.close())
            asked.append(endpoint.seen)
    assert asked[0] == asked[1] and len(asked[0]) >= 6


def test_only_the_world_can_be_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe=corpus", "source=events", "source.corrupt=0.2"], ROOT) == 2
    error = capsys.readouterr().err
    assert "source.corrupt=0.2" in error and "take source=world" in error
