"""recipe=corpus through the command line on what means it ill: broken videos, failing endpoints."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.data_pipeline.agents.endpoint import Endpoint
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
