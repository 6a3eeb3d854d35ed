"""Somebody's own ten seconds of video, from a JSON file to a trained and scored model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.world.scene import from_json
from data_pipeline.world.streams import stream
from data_pipeline.world.video import write_video

ROOT = Path(__file__).parents[2]


def own_clips(folder: Path, count: int) -> Path:
    """`count` videos of ten seconds and their records in the published raw form."""
    (folder / "videos").mkdir()
    records = []
    for number in range(count):
        timeline = stream("alerting", number, "train", seconds=10)
        name = f"clip{number}.mp4"
        assert timeline.clip.scene is not None
        scene = from_json(timeline.clip.scene)
        write_video(scene, folder / "videos" / name, 10, width=160, height=160)
        said = {
            role: [{"content": e.text, "time": str(e.second)} for e in timeline.of(role)]
            for role in ("user", "assistant")
        }
        records.append(
            {
                "video_name": name,
                "video_path": name,
                "task_type": "Alert",
                "source": "mine",
                "question": said["user"],
                "response": said["assistant"],
            }
        )
    path = folder / "mine.json"
    path.write_text(json.dumps(records))
    return path


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "joyvl_train", "recipe=sft", "setting=smoke", *overrides]
    return subprocess.run(
        [*command, "data.path=mine.json", "data.image_root=videos", "run.dir=run"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_own_videos_train_and_are_scored(tmp_path: Path):
    own_clips(tmp_path, 8)
    done = run(tmp_path, "data.held_out=0.4")
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert figures["train/steps"] == 2
    assert 0 < figures["eval/clips"] < 8
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_a_missing_video_is_one_line(tmp_path: Path):
    own_clips(tmp_path, 1)
    (tmp_path / "videos" / "clip0.mp4").unlink()
    done = run(tmp_path)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
