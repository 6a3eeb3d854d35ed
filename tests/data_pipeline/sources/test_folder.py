"""A folder of videos alone, and the speech in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources import folder
from data_pipeline.sources.videos import Videos
from tests.joyvl_train.videos import make_video


def read(root: Path, cache: Path) -> dict[str, Candidate | Refused]:
    results = list(folder.read(Videos(root), cache, licence="own"))
    return {
        one.where if isinstance(one, Refused) else one.timeline.clip.video or "": one
        for one in results
    }


def test_videos_are_probed_and_the_rest_refused_with_the_reason(tmp_path):
    root = tmp_path / "videos"
    (root / "yard").mkdir(parents=True)
    make_video(root / "yard/b.mp4", [k / 5 for k in range(20)])
    make_video(root / "a.MKV", [k / 5 for k in range(12)])
    (root / "cut.mp4").write_bytes((root / "yard/b.mp4").read_bytes()[:600])
    (root / "empty.mp4").write_bytes(b"")
    (root / "text.mp4").write_bytes(b"not a video at all")
    (root / "notes.txt").write_text("x")
    (root / ".hidden.mp4").write_text("x")
    (root / "gone.mp4").symlink_to("nowhere.mp4")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.mp4")
    found = read(root, tmp_path / "cache")
    reasons = {name: one.reason for name, one in found.items() if isinstance(one, Refused)}
    assert reasons == {
        ".hidden.mp4": "no video by its name",
        "cut.mp4": "not a video",
        "empty.mp4": "empty file",
        "gone.mp4": "missing file",
        "loop": "link to a folder",
        "notes.txt": "no video by its name",
        "pipe.mp4": "no regular file",
        "text.mp4": "not a video",
    }
    assert list(found) == sorted(found)
    one, two = found["a.MKV"], found["yard/b.mp4"]
    assert one.timeline.clip.duration == pytest.approx(2.4, abs=0.2)
    assert two.timeline.events == () and two.timeline.family == folder.FAMILY
    assert (two.work["width"], two.work["height"], two.licence) == (64, 48, "own")


def test_a_file_keeps_its_id_wherever_it_lies(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    make_video(tmp_path / "one/a.mp4", [k / 5 for k in range(10)])
    (tmp_path / "two/b.mp4").write_bytes((tmp_path / "one/a.mp4").read_bytes())
    (one,) = read(tmp_path / "one", tmp_path / "cache").values()
    (two,) = read(tmp_path / "two", tmp_path / "cache").values()
    assert one.id == two.id and one.timeline.clip.video != two.timeline.clip.video


def test_names_that_no_record_can_hold_are_refused(tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    make_video(tmp_path / "a.mp4", [k / 5 for k in range(5)])
    data = (tmp_path / "a.mp4").read_bytes()
    for name in (b"\xff.mp4", b"a\nb.mp4", b"c.zip.mp4", b"d.mp4"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(data)
    found = list(folder.read(Videos(root), tmp_path / "cache"))
    reasons = [one.reason if isinstance(one, Refused) else "" for one in found]
    assert sorted(reasons) == ["", "", "not UTF-8", "odd path"]
