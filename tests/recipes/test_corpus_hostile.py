"""recipe=corpus through the command line on what means it ill: broken videos, failing endpoints."""

from __future__ import annotations

import csv
import os
import random
import re
import subprocess
import sys
import zipfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from joyvl_train.cli import compose
from joyvl_train.corpus import open_corpus
from recipes import _corpus as own
from recipes import corpus as recipe
from tests.data_pipeline.agents.endpoint import YES, Endpoint
from tests.joyvl_train.videos import make_video, write_sound
from tests.recipes.test_corpus import ROOT, Run

pytestmark = pytest.mark.usefixtures("one_thread")

SECONDS = 10
TIMES = [k / 5 for k in range(5 * SECONDS)]


def huge(path: Path, side: int = 10_000) -> None:
    """Pictures that say they are so large: 300 MB each, to who believes it."""
    make_video(path, TIMES, codec="mjpeg", pix_fmt="yuvj420p", base=Fraction(1, 5))
    start, size = b"\xff\xc0\x00\x11\x08", (48).to_bytes(2, "big") + (64).to_bytes(2, "big")
    data = path.read_bytes()
    assert data.count(start + size) == len(TIMES)
    path.write_bytes(data.replace(start + size, start + side.to_bytes(2, "big") * 2))


def broken_videos(folder: Path) -> dict[str, str]:
    """Fills a folder with files that are no videos, but for good.mp4: the reason of each."""
    folder.mkdir()
    make_video(folder / "good.mp4", TIMES)
    good = (folder / "good.mp4").read_bytes()
    make_video(folder / "cut.mp4", TIMES, container={"movflags": "faststart"})
    whole = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: int(0.7 * len(whole))])
    (folder / "headless.mp4").write_bytes(good[: int(0.7 * len(good))])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("a letter\n" * 500)
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n")
    (folder / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{folder / 'good.mp4'}'\n")
    with zipfile.ZipFile(folder / "packed.mp4", "w") as archive:
        archive.writestr("a.mp4", good)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        write_sound(container, container.add_stream("aac", rate=16000), 0.0, 2.0)
    with av.open(str(folder / "frameless.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    make_video(folder / "long.mkv", [0.0, 1e5], base=Fraction(1, 1000))
    huge(folder / "huge.avi")
    (folder / "gone.mp4").symlink_to("nowhere.mp4")
    (folder / "zeros.mp4").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.mp4")
    return {
        "cut.mp4": "truncated",
        "headless.mp4": "not a video",
        "empty.mp4": "empty file",
        "text.mp4": "not a video",
        "playlist.mp4": "not a video",
        "list.mp4": "not a video",
        "packed.mp4": "not a video",
        "sound.mp4": "no video stream",
        "frameless.mp4": "no video stream",
        "long.mkv": "bad duration",
        "huge.avi": "no frames",
        "gone.mp4": "missing file",
        "zeros.mp4": "no regular file",
        "pipe.mp4": "no regular file",
    }


def command(run: Run, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which is ended where it hangs."""
    arguments = [*run.overrides, f"run.dir={run.dir}", *overrides]
    return subprocess.run(
        [sys.executable, "-m", "joyvl_train", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def reasons(run: Run) -> dict[str, str]:
    """Why each item is not in the corpus, whenever that was found out."""
    found = {line["where"]: line["reason"] for line in run.refused()}
    for line in run.rejects():
        found[line["timeline"]["clip"]["video"]] = line["history"][-1]["reason"]
    return found


def test_broken_videos_of_a_table_are_refused_row_by_row(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    expected = broken_videos(videos)
    (videos / "folder.mp4").mkdir()
    expected |= {
        "folder.mp4": "no regular file",
        "../videos/good.mp4": "outside the folder",
        str(videos / "good.mp4"): "outside the folder",
        "https://example.org/a.mp4": "no local file",
        "file:///etc/passwd": "no local file",
        "concat:good.mp4|good.mp4": "no local file",
        "packed.zip/a.mp4": "inside an archive",
        "good.mp4\0.txt": "odd path",
    }
    table = tmp_path / "events.csv"
    with table.open("w", newline="") as file:
        rows = [(name, 2, f"This is {n}.") for n, name in enumerate(["good.mp4", *expected])]
        csv.writer(file).writerows([("video", "start", "text"), *rows])
    run = Run(tmp_path, "source=events", f"source.videos={videos}", f"source.annotations={table}")
    done = command(run, "corpus.tools=[]")
    assert done.returncode == 0, done.stderr
    run.counts()
    assert run.figures["corpus/read"] == len(expected) + 1
    assert run.figures["corpus/admitted"] == 1
    lines = {f"events.csv line {n}": name for n, name in enumerate(expected, 3)}
    assert {lines.get(where, where): why for where, why in reasons(run).items()} == expected


def test_broken_videos_of_a_folder_are_refused_one_by_one(tmp_path: Path) -> None:
    """Folders are gone into, whatever they are called; links to folders are not."""
    videos = tmp_path / "videos"
    expected = broken_videos(videos)
    (videos / "folder.mp4").mkdir()
    (videos / "folder.mp4" / "cut.mp4").write_bytes(b"\0" * 1000)
    (videos / "circle.mp4").symlink_to(videos)
    expected |= {"folder.mp4/cut.mp4": "not a video", "circle.mp4": "link to a folder"}
    run = Run(tmp_path, "source=folder", f"source.videos={videos}", "corpus.tools=[]")
    with Endpoint("no") as endpoint:
        once = ["agents.model=m", "agents.reparses=0", "agents.retries=0"]
        done = command(run, f"agents.url={endpoint.url}", *once)
    assert done.returncode == 0, done.stderr
    run.counts()
    assert run.figures["corpus/read"] == len(expected) + 1
    assert {line["where"]: line["reason"] for line in run.refused()} == expected
    assert {line["timeline"]["clip"]["video"] for line in run.rejects()} == {"good.mp4"}


# Endpoints


STREAMS = 4


def asking(tmp_path: Path, endpoint: Endpoint, *overrides: str) -> Run:
    """A run on rendered streams, whose verifiers are at `endpoint`."""
    agents = [f"agents.url={endpoint.url}", "agents.model=m", "agents.reparses=0"]
    return Run(tmp_path, f"source.streams={STREAMS}", *agents, *overrides)


def check_verified(run: Run) -> int:
    """All is counted, and each clip that was admitted has passed both verifiers; how many."""
    run.counts()
    admitted = int(run.figures["corpus/admitted"])
    records = list(open_corpus(run.dir / "corpus")) if admitted else []
    assert len(records) == admitted
    for labels, _ in records:  # type: ignore[misc]
        passed = {note["stage"]: note for note in labels.history if note["agent"]}
        assert {"local", "global"} <= set(passed), labels.history
        assert all(note["verdict"] == "kept" for note in passed.values())
    return admitted


def left(run: Run) -> Counter[tuple[str, str]]:
    """How those that are not in the corpus ended."""
    notes = [line["history"][-1] for line in run.rejects()]
    return Counter((note["verdict"], note["reason"]) for note in notes)


def test_a_liar_that_denies_everything_leaves_nothing_in(tmp_path: Path) -> None:
    with Endpoint('{"reason": "It is not there.", "verdict": "no"}') as endpoint:
        run = asking(tmp_path, endpoint)
        assert run() == 0
    assert check_verified(run) == 0
    assert {verdict for verdict, _ in left(run)} == {"rejected"}
    assert left(run).total() == STREAMS


def test_one_who_is_never_sure_verifies_nothing(tmp_path: Path) -> None:
    with Endpoint('{"reason": "Who knows?", "verdict": "unsure"}') as endpoint:
        run = asking(tmp_path, endpoint)
        assert run() == 0
    assert check_verified(run) == 0
    assert left(run) == {("unverified", "unsure"): STREAMS}


def test_slow_answers_are_waited_for(tmp_path: Path) -> None:
    with Endpoint(lambda request, number: 0.1) as endpoint:
        run = asking(tmp_path, endpoint, "agents.timeout=60", "agents.retries=0")
        assert run() == 0
    assert check_verified(run) == STREAMS
    assert run.figures["agents/calls"] == len(endpoint.seen)


def test_an_endpoint_that_hangs_leaves_its_clips_unverified(tmp_path: Path) -> None:
    """The first question is never answered."""
    with Endpoint(lambda request, number: YES if number else 3600) as endpoint:
        run = asking(tmp_path, endpoint, "agents.timeout=5", "agents.retries=0")
        assert run() == 0
    assert check_verified(run) == STREAMS - 1
    assert left(run) == {("unverified", "agent failed"): 1}


def test_one_that_hangs_for_good_ends_the_run_in_a_line_and_spoils_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hangs = [True]
    with Endpoint(lambda request, number: 3600 if hangs[0] else YES) as endpoint:
        run = asking(tmp_path, endpoint, "agents.retries=0", "agents.failures=2")
        assert run("agents.timeout=0.5") == 2
        error = capsys.readouterr().err
        assert "questions on end got no answer; see to the endpoint" in error
        assert "Traceback" not in error and not (run.dir / "corpus").exists()
        hangs[0] = False
        assert run("agents.timeout=60") == 0
    assert check_verified(run) == STREAMS


def test_a_rate_limit_is_waited_out_and_its_calls_are_counted(tmp_path: Path) -> None:
    def script(request: dict[str, Any], number: int) -> Any:
        return YES if number % 3 == 2 else (429, {"error": {"message": "too many"}})

    with Endpoint(script) as endpoint:
        run = asking(tmp_path, endpoint, "agents.retries=20")
        assert run() == 0
    assert check_verified(run) == STREAMS
    found = run.figures
    asked = sum(found[f"agents/{name}_verifier/asked"] for name in ("local", "global"))
    assert found["agents/calls"] == len(endpoint.seen) > asked


def test_a_rate_limit_without_end_verifies_nothing(tmp_path: Path) -> None:
    with Endpoint((429, {"error": {"message": "too many"}})) as endpoint:
        run = asking(tmp_path, endpoint, "agents.retries=2", "agents.failures=1000")
        assert run() == 0
    assert check_verified(run) == 0
    assert left(run) == {("unverified", "agent failed"): STREAMS}


GARBAGE: list[Any] = [
    "",
    "Yes.",
    "yes" * 100_000,
    '{"verdict": "yes"',
    '{"verdict": "yes", "reason": NaN}',
    '{"verdict": "YES", "reason": "It is there."}',
    '{"verdict": ["yes"], "reason": "It is there."}',
    '{"reason": "It is there."}',
    '[{"verdict": "yes", "reason": "It is there."}]',
    '{"verdict": "yes", "reason": "It is there.", "verdict": "maybe"}',
    '{"verdict": "no", "reason": "It is there.", "verdict": "yes"}',
    "[" * 100_000,
    "</response> </silence>",
    b"",
    b"<html>Welcome</html>",
    b'{"choices": "yes"}',
    b'{"choices": [{"message": {"content": 5}}]}',
    b"\xff\xfe\0" * 1000,
    b"[" * 100_000,
    (200, {"error": "none"}),
    (500, {"error": {"message": "x" * 100_000}}),
    (404, {"error": {"message": "no such model"}}),
]


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["alone", "between answers"])
def test_garbage_is_never_taken_for_a_verdict(tmp_path: Path, share: float) -> None:
    rng = random.Random(0)

    def script(request: dict[str, Any], number: int) -> Any:
        return GARBAGE[number % len(GARBAGE)] if rng.random() < share else YES

    with Endpoint(script) as endpoint:
        run = asking(tmp_path, endpoint, "agents.retries=0", "agents.failures=1000")
        assert run("source.streams=12") == 0
    admitted = check_verified(run)
    assert admitted == 0 if share == 1 else admitted < 12
    ends = left(run)
    assert ends.total() == 12 - admitted
    assert set(ends) <= {("unverified", "unparsed"), ("unverified", "agent failed")}
    assert run.figures["agents/calls"] == len(endpoint.seen)


# What changes under a run


def test_videos_that_change_while_a_run_is_broken_off_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    made = [make_video(videos / f"{name}.mp4", TIMES) for name in "ab"]
    table = tmp_path / "events.csv"
    table.write_text("video,start,text\na.mp4,2,A van stops.\nb.mp4,3,A man falls.\n")
    run = Run(tmp_path, "source=events", f"source.videos={videos}", f"source.annotations={table}")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "settle", broken)
        with pytest.raises(RuntimeError, match="power"):
            run("corpus.tools=[]")
    before = made[1].read_bytes()
    kept = made[1].stat()
    make_video(made[1], TIMES[:30])
    capsys.readouterr()
    assert run("corpus.tools=[]") == 2
    error = capsys.readouterr().err
    assert re.search(r"error: .*b.mp4: has changed since the plan in .* was made", error)
    assert "Traceback" not in error and not (run.dir / "corpus").exists()
    made[1].write_bytes(before)
    os.utime(made[1], ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert run("corpus.tools=[]") == 0
    assert [path.name for path in run.dir.glob(".*.sqlite")] == []


def test_videos_that_come_or_go_make_another_source(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    config = compose(ROOT, ["recipe=corpus", "source=folder", f"source.videos={tmp_path}"])
    before = own.source_signature(config)
    (tmp_path / "notes.txt").write_text("no video")
    assert own.source_signature(config) == before
    (tmp_path / "b.mp4").write_bytes(b"b")
    assert own.source_signature(config) != before
