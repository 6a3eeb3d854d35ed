"""recipe=corpus through the command line: sources, resuming, agents, side commands."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.alone import Alone
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import SPLIT
from data_pipeline.families.targets import Tools
from data_pipeline.parts import Local, run_parts
from data_pipeline.plan import make_plan
from data_pipeline.work import StageWork, Workshop
from data_pipeline.world.scene import from_json
from data_pipeline.world.streams import WorldFrames, stream
from data_pipeline.world.video import write_video
from joyvl_train.cli import compose, main
from joyvl_train.corpus import open_corpus
from joyvl_train.frames import open_video
from joyvl_train.shards import read_shards
from recipes import _corpus as own
from recipes import corpus as recipe
from tests.data_pipeline import made_corpus
from tests.data_pipeline.agents.endpoint import Endpoint
from tests.data_pipeline.oracle import Oracle
from tests.joyvl_train.videos import make_video

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


class Run:
    """The command line of a run in a folder of its own."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder = folder
        self.dir = folder / "run"
        self.overrides = [
            "recipe=corpus",
            "setting=smoke",
            f"run.root={folder / 'outputs'}",
            f"data.cache_dir={folder / 'cache'}",
            f"agents.cache={folder / 'answers'}",
            *overrides,
        ]

    def __call__(self, *overrides: str, dir: Path | None = None) -> int:
        return main([*self.overrides, f"run.dir={dir or self.dir}", *overrides], ROOT)

    @property
    def figures(self) -> dict[str, float]:
        return dict(json.loads((self.dir / "metrics.json").read_text()))

    @property
    def card(self) -> str:
        return (self.dir / "corpus" / "README.md").read_text()

    def rejects(self) -> list[dict[str, Any]]:
        paths = sorted((self.dir / "rejects").glob("*.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]

    def refused(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for line in (self.dir / "plan" / "refused.jsonl").read_text().splitlines()
        ]

    def counts(self) -> None:
        """Nothing is lost: what was made of what was read ended somewhere."""
        found = self.figures
        ends = ("refused", "rejected", "unverified", "admitted")
        assert found["corpus/candidates"] == sum(found[f"corpus/{end}"] for end in ends)
        assert found["corpus/rejected"] + found["corpus/unverified"] == len(self.rejects())
        assert found["corpus/refused"] == len(self.refused())
        index = json.loads((self.dir / "corpus" / "index.json").read_text())
        assert found["corpus/admitted"] == sum(each["records"] for each in index["shards"])


def shards(folder: Path) -> dict[str, str]:
    """What a corpus consists of, by name; the card tells costs, which differ."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != "README.md"
    }


def own_clips(folder: Path, count: int, seconds: int = 10) -> tuple[Path, Path]:
    """A folder of `count` videos and a table of what happens in them, with what can't be used."""
    videos = folder / "videos"
    videos.mkdir()
    rows = []
    for number in range(count):
        timeline = stream("alerting", number, "train", seconds=seconds)
        assert timeline.clip.scene is not None
        scene = from_json(timeline.clip.scene)
        write_video(scene, videos / f"{number}.mp4", seconds, width=96, height=96)
        said = timeline.of("assistant") or [None]
        time = 5.0 if said[0] is None else max(3.0, said[0].time)
        rows.append((f"{number}.mp4", time, f"Thing number {number} comes in."))
    rows += [
        ("missing.mp4", 3, "Nobody sees this."),
        ("0.mp4", 99, "This is past the end."),
        ("../0.mp4", 3, "This is outside."),
        ("0.mp4", "soon", "This has no time."),
    ]
    table = folder / "events.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("video", "start", "text"), *rows])
    return videos, table


def test_the_world_becomes_a_corpus_that_says_how_it_came_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, "source.streams=12")
    assert run() == 0
    run.counts()
    assert run.figures["corpus/read"] == run.figures["corpus/admitted"] == 12
    assert 0 < run.figures["corpus/silence_share"] < 1
    said = capsys.readouterr().out
    assert "agents.url is empty: local, global left out for lack of agents" in said
    assert "labels are exact" in run.card and "No model has looked at these clips" in run.card
    assert "| Apache-2.0 | 12 |" in run.card and "Nothing: no agent was asked." in run.card
    page = (run.dir / "report.html").read_text()
    for heading in ("Funnel", "When things happen", "Clips", "What it cost"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<article data-kind=") == 8  # as corpus.shown says
    corpus = open_corpus(run.dir / "corpus")
    assert len(corpus) == len(list(corpus)) == 12
    link = tmp_path / "outputs" / "latest" / "corpus"
    assert link.resolve() == run.dir.resolve()


def test_a_finished_run_does_nothing_again(tmp_path: Path, monkeypatch: Any) -> None:
    run = Run(tmp_path, "source.streams=4")
    assert run() == 0
    before = {path: path.stat().st_mtime_ns for path in (run.dir / "corpus").iterdir()}
    monkeypatch.setattr(recipe, "make_plan", None)
    assert run() == 0
    assert before == {path: path.stat().st_mtime_ns for path in (run.dir / "corpus").iterdir()}


@pytest.mark.parametrize(
    "phase", [pytest.param("settle", marks=pytest.mark.slow), "finish", "report"]
)
def test_a_broken_off_run_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: Any, phase: str
) -> None:
    """Whatever was done before the break is taken as it is, other workers or not."""
    run = Run(tmp_path, "source.streams=12")
    assert run(dir=tmp_path / "whole") == 0

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(recipe, phase, broken)
        with pytest.raises(RuntimeError, match="power"):
            run()
    worked = {p: p.stat().st_mtime_ns for p in (run.dir / "work").glob("*.jsonl")}
    assert run("executor.workers=2") == 0
    assert worked == {p: p.stat().st_mtime_ns for p in (run.dir / "work").glob("*.jsonl")}
    assert shards(run.dir / "corpus") == shards(tmp_path / "whole" / "corpus")
    whole = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert run.figures == whole


@pytest.mark.slow
def test_workers_give_the_same_bytes(tmp_path: Path) -> None:
    run = Run(tmp_path, "source.streams=12", "corpus.per_part=3")
    assert run(dir=tmp_path / "one") == 0
    assert run("executor.workers=2") == 0
    assert shards(run.dir / "corpus") == shards(tmp_path / "one" / "corpus")


def test_videos_and_a_table_become_a_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, table = own_clips(tmp_path, 3)
    run = Run(tmp_path, "source=events", f"source.videos={videos}", f"source.annotations={table}")
    assert run("source.licence=CC0-1.0", "corpus.tools=[motion]") == 0
    run.counts()
    assert run.figures["corpus/read"] == 7
    reasons = sorted(line["reason"] for line in run.refused())
    assert reasons == sorted(
        ["missing file", "past the end", "outside the folder", "time is no number"]
    )
    assert run.figures["corpus/admitted"] == 3, run.rejects()
    assert (
        "- cc0-1.0" in run.card
        and "precheck, localize, hold, negatives, local, global, summaries." in run.card
    )
    records = list(open_corpus(run.dir / "corpus"))
    assert all(frames.seconds == 10 for _, frames in records)  # type: ignore[misc]
    capsys.readouterr()

    def told(id: str, code: int = 0) -> str:
        assert (
            main(["recipe=corpus", "command=inspect", f"id='{id}'", f"run.dir={run.dir}"], ROOT)
            == code
        )
        shown = capsys.readouterr()
        return shown.out + shown.err

    id = records[0][0].id  # type: ignore[index]
    whole = told(id)
    assert f"{id}: admitted" in whole and "shard-00000.parquet record 0" in whole
    assert "rules: kept" in whole and "made of: events.csv line 2" in whole
    assert told(id[:8]) == told("events.csv line 2") == whole
    missing = told("events.csv line 5")
    assert "events.csv line 5: refused" in missing and "missing.mp4" in missing
    assert "holds no such record" in told("0123456789", 2)
    assert "Traceback" not in told("x", 2)


def test_footage_of_a_benchmark_of_another_run_is_left_out(tmp_path: Path) -> None:
    videos, table = own_clips(tmp_path, 2)
    bench = tmp_path / "bench"
    tested = made_corpus.candidate(1, video="0.mp4", use="evaluation")
    plan = make_plan([tested], bench / "plan", 1, "s")
    work = StageWork(plan, bench / "work", partial(Workshop, ()), "s")
    run_parts(plan.sizes, work, Local(), bench / "work", progress=False)
    (bench / "finished").write_text("")
    run = Run(tmp_path, "source=events", f"source.videos={videos}", f"source.annotations={table}")
    assert run("corpus.tools=[motion]", f"corpus.apart_from=[{bench}]") == 0
    run.counts()
    (left,) = run.rejects()
    assert left["history"][-1]["reason"] == "footage of a benchmark"
    assert run.figures["corpus/admitted"] == 1


def test_rejected_and_duplicate_records_can_be_looked_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, _ = own_clips(tmp_path, 2)
    table = tmp_path / "twice.csv"
    rows = [
        "video,start,text,instruction",
        "0.mp4,5,A red car comes.,Tell me when a red car comes.",
        "0.mp4,5,A red car comes!,Tell me when a red car comes!",
        "1.mp4,5,The gate opens.,Delegate nothing.",
    ]
    table.write_text("\n".join(rows))
    run = Run(tmp_path, "source=events", f"source.videos={videos}", f"source.annotations={table}")
    assert run("corpus.family_shares.alerting=0", "corpus.tools=[]") == 0
    run.counts()
    assert run.figures["corpus/admitted"] == 0
    gone = run.rejects()[0]
    assert gone["history"][-1]["reason"] == "balance"
    (twice,) = run.refused()
    assert twice["reason"] == "near-same text"
    for id, words in ((gone["id"], "settle: rejected: balance"), (twice["where"], "near-same")):
        capsys.readouterr()
        assert (
            main(["recipe=corpus", "command=inspect", f"id={id}", f"run.dir={run.dir}"], ROOT) == 0
        )
        assert words in capsys.readouterr().out
    page = (run.dir / "report.html").read_text()
    assert 'data-kind="rejected: settle: balance"' in page and "near-same text" in page


def knowing(oracle: Oracle, run: Run, *overrides: str) -> None:
    """The oracle knows each stream that the run will draw."""
    config = compose(ROOT, [*run.overrides, *overrides])
    for candidate in own.read(config):
        timeline = candidate.timeline  # type: ignore[union-attr]
        oracle.knows(timeline, WorldFrames(timeline, config.data.size))


def test_agents_verify_what_they_can_see_and_are_paid_once(
    tmp_path: Path, monkeypatch: Any
) -> None:
    run = Run(tmp_path, "source.streams=6", "data.families=[alerting,chat]")
    with Oracle(errs={"global_verifier": 0.4}) as oracle:
        knowing(oracle, run)
        url = oracle._endpoint.url
        paid = ["agents.prompt_price=1", "agents.completion_price=1"]
        assert run(f"agents.url={url}", "agents.model=oracle", *paid) == 0
        asked = oracle.asked.total()
        run.counts()
        found = run.figures
        assert found["agents/calls"] == asked > 0 and found["agents/cost"] > 0
        left = [value for name, value in found.items() if name.startswith("corpus/left/")]
        assert 0 < sum(left) < 6
        assert f"{int(found['corpus/admitted'])} clips passed both" in run.card
        assert re.search(r"\| global_verifier \| global_verifier@[0-9a-f]{8} \|", run.card)
        again = [f"agents.url={url}", "agents.model=oracle", *paid]
        assert run(*again, dir=tmp_path / "again") == 0
        assert oracle.asked.total() == asked
    figures = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert figures["agents/calls"] == 0 and figures["agents/cost"] == 0
    assert shards(tmp_path / "again" / "corpus") == shards(run.dir / "corpus")


def test_what_cannot_be_verified_is_never_admitted_unless_asked_for(tmp_path: Path) -> None:
    run = Run(tmp_path, "source.streams=3")
    with Endpoint("I would rather not say.") as endpoint:
        url = [f"agents.url={endpoint.url}", "agents.model=mute", "agents.reparses=0"]
        assert run(*url) == 0
        run.counts()
        assert run.figures["corpus/admitted"] == 0
        assert run.figures["corpus/unverified"] == 3
        assert run.figures["corpus/left/local/unparsed"] == 3
        assert run(*url, "corpus.verify=off", dir=tmp_path / "off") == 0
    card = (tmp_path / "off" / "corpus" / "README.md").read_text()
    assert "3 clips" in card and "Verification was switched off" in card


def test_a_cap_on_cost_ends_the_run_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, "source.streams=3", "agents.prompt_price=1000000")
    with Endpoint() as endpoint:
        assert run(f"agents.url={endpoint.url}", "agents.model=m", "agents.max_cost=0.001") == 2
    error = capsys.readouterr().err
    assert "raise the cap and start again" in error and "Traceback" not in error


def test_footage_alone_goes_through_all_families(tmp_path: Path) -> None:
    """Every clip is shared out; agents that say no to everything leave only rejects."""
    videos, _ = own_clips(tmp_path, 1)
    run = Run(tmp_path, "source=folder", f"source.videos={videos}", "corpus.tools=[]")
    with Endpoint("no") as endpoint:
        url = f"agents.url={endpoint.url}"
        assert run(url, "agents.model=m", "agents.reparses=0", "agents.retries=0") == 0
    run.counts()
    assert run.figures["corpus/read"] == 1 and run.figures["corpus/admitted"] == 0
    assert {line["timeline"]["family"] for line in run.rejects()} == {"unlabelled", *own.FAMILIES}
    split = [line for line in run.rejects() if line["history"][-1]["reason"] == SPLIT]
    assert len(split) == 1


def test_a_long_video_is_cut_around_what_is_annotated(tmp_path: Path) -> None:
    """Two events late in a video: what is stored is what lies around each."""
    (tmp_path / "v").mkdir()
    make_video(tmp_path / "v/long.mp4", [k / 3 for k in range(3 * 200)], size=(48, 32), g="20")
    table = tmp_path / "events.csv"
    table.write_text("video,start,end,text\nlong.mp4,180,182,It opens.\nlong.mp4,150,,It rings.\n")
    run = Run(tmp_path, "source=events", f"source.videos={tmp_path / 'v'}", "corpus.tools=[]")
    assert run(f"source.annotations={table}", "source.before=12", "source.after=5") == 0
    run.counts()
    whole = open_video(tmp_path / "v/long.mp4", 1, cache_dir=tmp_path / "other", size=384)
    kept = 0
    for labels, frames in read_shards(run.dir / "corpus"):  # type: ignore[misc]
        clip, response = labels.timeline.clip, labels.timeline.of("assistant")[0]
        assert (clip.offset + response.time, response.text) in {
            (180.0, "It opens."),
            (150.0, "It rings."),
        }
        before = response.second
        assert 6 <= before <= 12 and frames is not None
        assert [frames.encoded(t) for t in range(frames.seconds)] == [
            whole.encoded(clip.offset + t) for t in range(frames.seconds)
        ]
        assert frames.seconds == before + (2 if response.until else 1) + 5
        assert f"long.mp4 from {clip.offset} s on" in (run.dir / "report.html").read_text()
        kept += 1
    assert kept == 2
    decoded = (tmp_path / "cache" / "frames").rglob("*.frames")
    assert sum(path.stat().st_size for path in decoded) < whole.cache_bytes / 2


def test_annotations_alone_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "charades.txt"
    path.write_text("ABC 1.0 5.0##a person opens a door.\nno line\nABC 7 3##it is over.\n")
    run = Run(tmp_path, "command=convert", "source=charades_sta", f"source.annotations={path}")
    assert run() == 0
    found = run.figures
    assert found["convert/read"] == 3 == found["convert/written"] + found["convert/rejected"]
    assert (run.dir / "timelines.jsonl").read_text().count("\n") == found["convert/timelines"] == 1
    assert (run.dir / "report.html").exists()
    assert not (tmp_path / "outputs" / "latest").exists()


def test_subtitles_alone_become_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "talk.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nGood day.\n")
    run = Run(tmp_path, "command=convert", "source=subtitles", f"source.annotations={path}")
    assert run("source.task=translate") == 0
    (line,) = (run.dir / "timelines.jsonl").read_text().splitlines()
    assert json.loads(line)["family"] == "translation"
    assert json.loads(line)["events"][-1]["time"] == 1.0
    assert run("source.task=translate", "source.due=end", dir=tmp_path / "heard") == 0
    (line,) = (tmp_path / "heard" / "timelines.jsonl").read_text().splitlines()
    assert json.loads(line)["events"][-1]["time"] == 2.0


def test_changed_annotations_are_noticed_in_a_folder_too(tmp_path: Path) -> None:
    path = tmp_path / "talk.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nGood day.\n")
    for given in (path, tmp_path):
        overrides = ["recipe=corpus", "source=subtitles", f"source.annotations={given}"]
        config = compose(ROOT, overrides)
        before = own.source_signature(config)
        assert own.source_signature(config) == before
        path.write_text(path.read_text().replace("day", "night"))
        assert own.source_signature(config) != before, given
        path.write_text(path.read_text().replace("night", "day"))
    # The folder's case is the last: a subtitle's name says which video it belongs to.
    moved = tmp_path / "other" / "talk.srt"
    moved.parent.mkdir()
    path.rename(moved)
    assert own.source_signature(config) != before


@pytest.mark.parametrize(
    ("kind", "families"),
    [("world", ()), ("joyai", ()), ("events", ("alerting",)), ("folder", own.FAMILIES)],
)
def test_families_by_source(kind: str, families: tuple[str, ...]) -> None:
    config = compose(ROOT, ["recipe=corpus", f"source={kind}"])
    assert own.families_of(config) == families
    config = compose(ROOT, ["recipe=corpus", f"source={kind}", "corpus.families=[chat,alerting]"])
    assert own.families_of(config) == ("alerting", "chat")


def test_stages_are_called_as_the_families_call_them() -> None:
    """What is left out without agents is told by names that stand in the stages."""
    every = "corpus.families=[alerting,qa,counting,commentary,chat,delegation]"
    config = compose(ROOT, ["recipe=corpus", "source=events", every])
    frames = own.clip_frames(config)
    whole = [name for name, _ in recipe.steps(config, Desk(frames), Tools())]
    alone = [name for name, _ in recipe.steps(config, Alone(frames), Tools())]
    assert set(alone) < set(whole)
    assert {*own.WITHOUT_AGENTS, *own.left_out(config)} <= set(whole)
    assert not set(own.left_out(config)) & {*own.WITHOUT_AGENTS}


def test_a_worker_begins_without_the_training_library() -> None:
    """Each worker imports what it works with: others would take it seconds. What asks agents is
    imported where there are some."""
    slow = {"torch", "transformers", "openai", "jsonschema"}
    code = f"import sys, recipes.corpus; print({slow} & set(sys.modules))"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "set()"


def test_a_worker_finds_everything_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_clips(tmp_path, 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    words = ["recipe=corpus", "source=events", "source.videos=videos", "agents.cache=answers"]
    words += ["source.annotations=events.csv", "agents.url=http://127.0.0.1:9/v1", "agents.model=m"]
    config = compose(ROOT, [*words, "data.cache_dir=cache"])
    first = next(item for item in own.read(config) if isinstance(item, Candidate))
    there = own.for_workers(config)
    assert "auto" in config.corpus.tools and "auto" not in there.corpus.tools
    assert own.stage_signature(there) == own.stage_signature(config)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert own.clip_frames(there)(first.timeline).seconds == 10
    assert (tmp_path / "cache").is_dir()
    agent = next(iter(own.agents_of(there, {}).values()))
    assert agent.client.cache == tmp_path / "answers"


def test_what_runs_the_parts() -> None:
    def made(*overrides: str) -> Any:
        return own.executor_of(compose(ROOT, ["recipe=corpus", *overrides]))

    assert made("executor.workers=3") == Local(3)
    slurm = made("executor.kind=slurm", "executor.partition=p", "executor.options.account=vision")
    assert (slurm.partition, slurm.options) == ("p", {"account": "vision"})
    assert made("executor.kind=ray", "executor.address=auto").address == "auto"


@pytest.mark.slow
def test_a_newcomers_videos_become_a_trained_model(tmp_path: Path) -> None:
    videos, table = own_clips(tmp_path, 8)
    run = Run(tmp_path, "source=events", f"source.videos={videos}", f"source.annotations={table}")
    assert run() == 0
    assert run.figures["corpus/admitted"] >= 6
    trained = tmp_path / "trained"
    arguments = ["recipe=sft", "setting=smoke", f"data.path={run.dir / 'corpus'}"]
    places = [f"run.dir={trained}", f"run.root={tmp_path / 'outputs'}", "data.held_out=0.4"]
    assert main([*arguments, *places, "run.threads=1"], ROOT) == 0
    figures = json.loads((trained / "metrics.json").read_text())
    assert figures["train/steps"] == 2 and figures["eval/clips"] > 0
    assert (trained / "report.html").exists()
