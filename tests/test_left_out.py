"""What can't be used beside what can: left out, counted by reason, and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from joyvl_train.actions import RESPONSE, SILENCE
from joyvl_train.cli import main
from joyvl_train.collate import Part
from joyvl_train.config import EngineConfig, TrainConfig
from joyvl_train.records import Rejects, footage_number
from joyvl_train.sides import side_of
from joyvl_train.training import fit
from joyvl_train.video import FrameError
from tests.bad_places import (
    ROOT,
    SECONDS,
    Place,
    chat,
    cut,
    grey,
    raw,
)
from tests.tiny_training import parts, tiny


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mixed(place: Place) -> list[Any]:
    """A record that is whole, and one each whose pictures break late, are missing, are too many."""
    whole = place.pictures()
    for name in ("torn0.jpg", "torn1.jpg"):
        grey(3).save(place.folder / name)
        cut(place.folder / name, 0.95)
    records = [chat(whole), chat(["torn0.jpg", "torn1.jpg"]), chat(["none.jpg"]), chat(whole * 9)]
    return [{**record, "video_name": f"clip {n}"} for n, (record,) in enumerate(records)]


def test_what_training_leaves_out_is_counted_by_reason(place: Place) -> None:
    # Of short clips a row holds many, so that the torn one is drawn at once.
    arguments = place.data(mixed(place), "train.row_tokens=700")
    assert main(arguments, ROOT) == 0
    run = place.folder / "run"
    figures = json.loads((run / "metrics.json").read_text())
    assert {key: value for key, value in figures.items() if "left_out" in key} == {
        "train/left_out": 3,
        "train/left_out/missing_file": 1,
        "train/left_out/too_long": 1,
        "train/left_out/unreadable_picture": 1,
    }
    assert figures["train/steps"] == 2
    logged = [line for line in lines(run / "log.jsonl") if "train/loss" in line]
    assert logged and all(line["train/left_out"] == 3 for line in logged)
    reasons = sorted(line["reason"] for line in lines(run / "rejects.jsonl"))
    assert reasons == ["missing file", "too long", "unreadable picture"]
    # No clip is held out: there is nothing to measure, and the report says so.
    assert "nothing is measured" in (run / "report.html").read_text()
    assert figures["data/rejected"] == 0 and "eval/onset_f1" not in figures


def test_held_out_clips_are_looked_at_before_they_are_scored(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def names(side: str, ending: str) -> Iterator[str]:
        """Folders, or with an ending files, on this side."""
        every = (f"clip {n}{ending}" for n in range(200))
        return (name for name in every if side_of(footage_number(name), 0.5) == side)

    def moved(record: Any, folder: str) -> Any:
        (place.folder / folder).mkdir()
        images = [f"{folder}/{n}.jpg" for n in range(len(record["images"]))]
        for source, target in zip(record["images"], images, strict=True):
            (place.folder / target).write_bytes((place.folder / source).read_bytes())
        return {**record, "images": images, "video_name": folder}

    free, held, video = names("train", ""), names("test", ""), next(names("test", ".mp4"))
    whole, torn = mixed(place)[:2]
    # A chat of three turns about a video of six seconds: three are scored.
    [start] = chat([], [SILENCE, f"{RESPONSE} Fire!", SILENCE], ["Hm?"] * 3)
    start = {**start, "video_path": place.video(video).name, "video_name": video}
    scored_whole = moved(whole, next(held))
    # Rejected at once, and not of what is trained on.
    said = [{"content": text, "time": 1} for text in ("Fire!", "Smoke!")]
    [twice] = raw(video, response=said)
    records = [moved(whole, next(free)), scored_whole, moved(torn, next(held)), start, twice]
    assert main([*place.data(records, "train.steps=0"), "data.held_out=0.5"], ROOT) == 0
    run = place.folder / "run"
    figures = json.loads((run / "metrics.json").read_text())
    assert figures["eval/clips"] == 2 and figures["data/rejected"] == 2
    assert figures["train/left_out"] == 0
    reasons = {line["reason"]: line["detail"] for line in lines(run / "rejects.jsonl")}
    assert set(reasons) == {"two in one second", "unreadable picture"}
    assert "0.jpg" in reasons["unreadable picture"]
    scored = {trace["clip"]: len(trace["steps"]) for trace in lines(run / "traces.jsonl")}
    assert scored == {scored_whole["video_name"]: SECONDS, video: 3}
    told = capsys.readouterr().out
    assert "left out of the data: 2 rejected" in told and "left out of training" not in told


def test_a_row_without_weight_teaches_nothing_and_breaks_nothing(place: Place) -> None:
    quiet = chat(place.pictures(), [SILENCE] * SECONDS)
    rest = ("silence_first", "silence_repeat", "other")
    only_responses = [f"loss.{key}=0" for key in rest]
    assert main(place.data(quiet, *only_responses, "loss.normalizer=weights"), ROOT) == 0
    logged = [line for line in lines(place.folder / "run" / "log.jsonl") if "train/loss" in line]
    assert [line["train/loss"] for line in logged] == [0.0, 0.0]


@dataclass
class Breaking:
    """Samples of which one in three turns out to be broken."""

    whole: Any

    def __len__(self) -> int:
        return 9

    def length(self, index: int) -> int:
        return int(self.whole.length(index))

    def render(self, index: int) -> Any:
        if index % 3 == 0:
            raise FrameError("damaged", f"sample {index}")
        return self.whole.render(index)


def test_what_was_left_out_is_still_counted_after_a_kill(tmp_path: Path) -> None:
    def trained(folder: Path, killed_at: int = 0) -> tuple[dict[str, float], dict[int, Any]]:
        model, processor = tiny()
        source = Breaking(parts(processor)[0].source)
        logged: dict[int, Any] = {}

        def killed(step: int) -> dict[str, float]:
            if step == killed_at:
                raise KeyboardInterrupt
            return {}

        train = TrainConfig(
            steps=6, row_tokens=400, save_every=2, log_every=1, eval_every=1, precision="fp32"
        )
        figures = fit(
            model,
            [Part("clips", source, 1.0)],
            train,
            EngineConfig(),
            folder,
            seed=1,
            log=lambda line: logged.setdefault(int(line["step"]), {}).update(line),
            validate=killed,
            left_out={"too long": 4},
        )
        counts = {key: value for key, value in figures.items() if "left_out" in key}
        return counts, logged

    counts, logged = trained(tmp_path / "unbroken")
    assert counts == {
        "train/left_out": 7.0,
        "train/left_out/damaged": 3.0,
        "train/left_out/too_long": 4.0,
    }
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", killed_at=5)
    again, later = trained(tmp_path / "killed")
    assert again == counts and sorted(later) == [5, 6]
    assert later[5]["train/left_out"] == logged[5]["train/left_out"]


def test_rejects_of_several_processes_are_written_once(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    first, second = Rejects(path), Rejects(path)
    for rejects in (first, second, first, Rejects(path)):
        rejects.add("a", "damaged", "x")
    second.add("b", "damaged", "y")
    with path.open("a") as file:
        file.write('{"item": "c", "rea')  # torn by a kill
    first.add("b", "damaged", "y")
    first.add("d", "damaged", "z")
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["item"] for line in whole] == ["a", "b", "d"]
    assert (first.total, second.total) == (3, 2)
