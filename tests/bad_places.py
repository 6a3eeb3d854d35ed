"""How users go wrong: an empty folder with a very small model beside it, and what goes wrong there.

Each cause puts real files into the folder and returns the command line; `tests/test_bad_input.py`
says how the command ends.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from joyvl_train import checkpoint
from joyvl_train.actions import RESPONSE, SILENCE
from joyvl_train.cli import main
from joyvl_train.config import Config
from joyvl_train.run import to_yaml
from joyvl_train.shard_rows import stream_row
from joyvl_train.shards import StreamLabels, write_shards
from joyvl_train.timeline import Clip, Event, Timeline

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 6


@dataclass
class Place:
    """Where a row happens: an empty folder, and a very small model beside it."""

    folder: Path
    model: Path
    patch: pytest.MonkeyPatch

    def sft(self, *overrides: str) -> list[str]:
        """Training of the very small model, seconds long where nothing is wrong."""
        named = {text.partition("=")[0] for text in overrides}
        given = {
            "model.path": str(self.model),
            "run.dir": str(self.folder / "run"),
            "run.root": str(self.folder / "outputs"),
            "data.workers": "0",
            "data.cache_dir": str(self.folder / "cache"),
        }
        own = [f"{key}={value}" for key, value in given.items() if key not in named]
        return ["recipe=sft", "setting=smoke", "data.size=64", *own, *overrides]

    def data(self, content: Any, *overrides: str, name: str = "mine.json") -> list[str]:
        """Training on a file of these records, or of this text or these bytes as they are."""
        path = self.folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return self.sft(f"data.path={path}", "data.held_out=0", *overrides)

    def shards(self, change: Callable[[Path], object] = lambda folder: None) -> list[str]:
        """Training on a corpus of one short stream, to which something was done."""
        folder = self.folder / "corpus"
        write_shards([(StreamLabels(timeline()), Greys())], folder)
        change(folder)
        return self.sft(f"data.path={folder}", "data.held_out=0")

    def stored(self, **values: Any) -> list[str]:
        """Training on a corpus whose columns say `values`: another program wrote it."""
        wrong = {**stream_row(StreamLabels(timeline())), **values}
        self.patch.setattr("joyvl_train.shard_file.stream_row", lambda labels: wrong)
        return self.shards()

    def video(self, name: str = "a.mp4", times: Sequence[float] = (), **options: Any) -> Path:
        """A small video of `SECONDS`, four pictures a second."""
        path = self.folder / name
        base = options.get("base", Fraction(1, 90000))
        with av.open(str(path), "w", options=options.get("container", {})) as container:
            stream = container.add_stream("libx264", rate=4, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            stream.codec_context.time_base = base
            for number, time in enumerate(times or [k / 4 for k in range(4 * SECONDS)]):
                frame = av.VideoFrame.from_image(grey(number))
                frame.pts, frame.time_base = round(time / base), base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def sound(self, name: str = "a.mp4") -> Path:
        """A file of the same kind that holds sound alone."""
        path = self.folder / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000)
            for start in range(0, 16000, 1024):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                frame.sample_rate, frame.pts = 16000, start
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def pictures(self, count: int = SECONDS) -> list[str]:
        """So many picture files, by name."""
        names = [f"p{number}.jpg" for number in range(count)]
        for number, name in enumerate(names):
            grey(number).save(self.folder / name)
        return names

    def copied_model(self, change: Callable[[Path], object]) -> list[str]:
        """Training of a copy of the model, to which something was done."""
        folder = self.folder / "model"
        shutil.copytree(self.model, folder)
        change(folder)
        return self.sft(f"model.path={folder}")

    def run_of(self, config: Config) -> Path:
        """The folder of a run of `config` that has begun."""
        folder = self.folder / "run"
        folder.mkdir()
        (folder / "config.yaml").write_text(to_yaml(config))
        (folder / "metrics.json").write_text("{}")
        return folder


class Greys:
    """Frames of one grey each, a second apart."""

    seconds = SECONDS

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        return (grey(second),)


def grey(number: int) -> Image.Image:
    return Image.new("RGB", (64, 64), (number * 9 % 256,) * 3)


def event(**values: Any) -> dict[str, Any]:
    return {"id": "e", "time": 2.0, "role": "assistant", "text": "Fire!", **values}


def timeline() -> Timeline:
    return Timeline(Clip("clip", float(SECONDS)), "alerting", "mine", (Event(**event()),))


def raw(video: str = "a.mp4", *, time: Any = "3", say: str = "Fire!", **more: Any) -> list[Any]:
    """One published raw record."""
    record = {
        "video_name": video,
        "video_path": video,
        "task_type": "Alert",
        "question": [{"content": "Tell me when it burns.", "time": "0"}],
        "response": [{"content": say, "time": time}],
    }
    return [{**record, **more}]


def chat(
    names: Sequence[str], replies: Sequence[str] = (), users: Sequence[str] = (), **more: Any
) -> list[Any]:
    """One published chat of a turn a second, a picture a turn."""
    replies = replies or [SILENCE] * (len(names) - 1) + [f"{RESPONSE} Fire!"]
    users = users or [f"<{t}.0 seconds>\n<image>" for t in range(len(replies))]
    turns = [
        {"role": role, "content": text}
        for user, reply in zip(users, replies, strict=True)
        for role, text in (("user", user), ("assistant", reply))
    ]
    record = {"messages": turns, "images": list(names), "video_name": "a", "task_type": "Alert"}
    return [{**record, **more}]


# -- causes that take more than a line -----------------------------------------------------------


def cut(path: Path, share: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def flipped(path: Path, after: bytes, places: int = 30) -> None:
    """A byte of a file is another one: so many places after where `after` is first found."""
    data = bytearray(path.read_bytes())
    data[data.index(after) + places] ^= 0xFF
    path.write_bytes(bytes(data))


def edited(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def shard_of_no_pictures(place: Place) -> list[str]:
    """The checksums are right, but what they are of is no picture."""
    place.patch.setattr(
        "joyvl_train.shard_file.encode", lambda image, quality: b"no picture at all"
    )
    return place.shards()


def huge_picture(place: Place) -> list[str]:
    """A PNG whose head promises 100000 x 100000 pixels."""
    names = place.pictures()
    grey(0).save(place.folder / "huge.png")
    data = bytearray((place.folder / "huge.png").read_bytes())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (place.folder / "huge.png").write_bytes(bytes(data))
    return place.data(chat([*names[:-1], "huge.png"]))


def broken_bodies(place: Place) -> list[str]:
    """Pictures whose heads are whole: their sizes are known, but none can be decoded."""
    names = place.pictures()
    for name in names:
        cut(place.folder / name, 0.95)
    return place.data(chat(names))


def text_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def other_tokenizer(folder: Path) -> None:
    """A tokenizer with more tokens than the model has embeddings."""
    tokenizer = checkpoint.train_tokenizer(["a b c " * 50, "de fg hi jk lm " * 50], 420)
    tokenizer.add_tokens([f"word{n}" for n in range(300)])
    tokenizer.save_pretrained(folder)


def no_deepspeed(place: Place) -> list[str]:
    place.patch.setitem(sys.modules, "deepspeed", None)
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        place.patch.setenv(name, value)
    for name in ("LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        place.patch.setenv(name, "1")
    return place.sft("engine=zero2")


def no_wandb(place: Place) -> list[str]:
    place.patch.setitem(sys.modules, "wandb", None)
    return place.data(chat(place.pictures()), "run.wandb=offline")


def two_started(place: Place, *overrides: str) -> list[str]:
    """As `accelerate launch --num_processes 2` starts each of them."""
    place.patch.setenv("RANK", "0")
    place.patch.setenv("WORLD_SIZE", "2")
    return ["recipe=base", f"run.dir={place.folder / 'run'}", *overrides]


def few_gpus(place: Place) -> list[str]:
    place.patch.setattr("torch.cuda.device_count", lambda: 1)
    return place.sft("engine=ddp", "engine.processes=2")


def nothing_fetched(place: Place, *overrides: str) -> list[str]:
    place.patch.setenv("JOYVL_CACHE", str(place.folder))
    return place.sft(*overrides)


def with_variable(place: Place, name: str, value: str, arguments: list[str]) -> list[str]:
    place.patch.setenv(name, value)
    return arguments


def full_disk(place: Place, name: str) -> list[str]:
    folder = place.folder / "run"
    folder.mkdir()
    (folder / f".{name}.tmp").symlink_to("/dev/full")
    return place.data(chat(place.pictures()), "train.steps=0")


def full_cache(place: Place) -> list[str]:
    place.video()
    arguments = place.data(raw())

    def full(self: Path, data: bytes) -> int:
        with Path("/dev/full").open("wb") as file:
            return file.write(data)

    place.patch.setattr(Path, "write_bytes", full)
    os.utime(place.folder / "a.mp4", (0, 0))
    return arguments


def limited_files(place: Place) -> list[str]:
    """As `ulimit -f` does it: a checkpoint has no room. The fixture lifts the limit."""
    arguments = place.data(chat(place.pictures()), "train.steps=0")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    return arguments


def folder_for_link(place: Place) -> list[str]:
    """A folder stands where the newest run of the recipe is to be linked."""
    (place.folder / "outputs" / "latest" / "sft" / "copy").mkdir(parents=True)
    return place.data(chat(place.pictures()), "train.steps=0")


def another_run(place: Place, text: str, **values: Any) -> list[str]:
    """run.dir is that of a run which had other values."""
    config = Config(recipe="sft")
    for key, value in values.items():
        setattr(config, key, value)
    folder = place.run_of(config)
    if text:
        (folder / "config.yaml").write_text(text)
    return place.sft()


def torn_files(place: Place, name: str, text: str) -> list[str]:
    """A file of the run was edited by hand, before the same command goes on."""
    arguments = place.data(chat(place.pictures()), "train.steps=0")
    assert main([*arguments, "train.minutes=0"], ROOT) == 0
    folder = place.folder / "run"
    (folder / "finished").unlink()
    shutil.rmtree(folder / "checkpoint")
    (folder / name).write_text(text)
    return arguments


def unfinished(folder: Path) -> None:
    (folder / "index.json").unlink()


def all_held_out(place: Place) -> list[str]:
    # A hash of the clip's id decides; this one is among the first nine tenths.
    return place.data(chat(place.pictures()), "data.held_out=0.9")


def deep(place: Place) -> list[str]:
    return place.data("[" + "[" * 100_000 + "]" * 100_000 + "]")


RESULT = ({"content": "7", "time": 1, "delegation": 1},)


def delegating(time: str) -> list[Any]:
    """A delegation at `time`, whose result comes at second 1."""
    said = [{"content": "Let me see.", "time": time, "delegation": "How many?"}]
    return raw(response=said, background=list(RESULT))
