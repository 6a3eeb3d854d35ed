"""What users get wrong, in one table: how it comes about, and the one line that ends the command.

Each row is caused for real, with files on disk, and goes through the command line in process: exit
code 2 and one `error: ` line that names the value, the place and the mend. A bad record that is the
only one of its data ends the command with the reason under which it is counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction

import pytest
from PIL import Image

from joyvl_train.actions import SILENCE
from joyvl_train.cli import main
from tests.bad_corpora import CORPUS_ROWS
from tests.bad_places import (
    RESULT,
    ROOT,
    Place,
    all_held_out,
    another_run,
    broken_bodies,
    chat,
    cut,
    deep,
    delegating,
    edited,
    event,
    few_gpus,
    flipped,
    folder_for_link,
    full_cache,
    full_disk,
    huge_picture,
    limited_files,
    no_deepspeed,
    no_wandb,
    nothing_fetched,
    other_tokenizer,
    raw,
    shard_of_no_pictures,
    text_model,
    torn_files,
    two_started,
    unfinished,
    with_variable,
)

Cause = Callable[[Place], list[str]]
BASE = ["recipe=base", "setting=smoke"]

WEIGHTS = ("silence_first", "silence_repeat", "response", "other")
ONLY_RESPONSES = [f"loss.{key}=0" for key in WEIGHTS if key != "response"]

TABLE: dict[str, tuple[Cause, str]] = {
    # The command line and the config.
    "no recipe": (lambda p: ["seed=1"], r"no recipe is named; give one"),
    "unknown recipe": (lambda p: ["recipe=stf"], r"no such recipe; it is one of .* Did you mean"),
    "unknown option": (lambda p: ["recipe=sft", "--cgf"], r"unrecognized arguments: --cgf"),
    "unknown command": (lambda p: p.sft("command=train"), r"command=train: recipe=sft has run and"),
    "command of another recipe": (
        lambda p: [*BASE, "command=evaluate", f"run.dir={p.folder / 'run'}"],
        r"command=evaluate: recipe=base has run alone",
    ),
    "mistyped key": (lambda p: p.sft("data.sed=3"), r"no key data.sed. Did you mean data.seed"),
    "mistyped group": (lambda p: p.sft("loss=wieghted"), r"no such loss.* Did you mean weighted"),
    "a group for a key": (lambda p: p.sft("train=3"), r"train holds keys; set one of them"),
    "no key=value": (lambda p: p.sft("sft"), r"can't be read as key=value"),
    "a sweep without -m": (lambda p: p.sft("seed=0,1"), r"several values make a sweep; add -m"),
    "value of another type": (lambda p: p.sft("seed=abc"), r"seed=abc: takes int, 0 to"),
    "value out of bounds": (lambda p: p.sft("train.steps=-1"), r"train.steps=-1: takes int, 0 to"),
    "not a finite value": (lambda p: p.sft("train.minutes=inf"), r"minutes=inf: takes number"),
    "value of no choice": (lambda p: p.sft("model.dtype=int4"), r"model.dtype=int4: takes auto or"),
    "too few of a list": (lambda p: p.sft("train.betas=[0.9]"), r"takes two numbers, such as"),
    "unknown name in a value": (lambda p: p.sft("run.dir=${no}"), r"Interpolation key 'no'"),
    "frames of absurd size": (lambda p: p.sft("data.size=100000"), r"takes int, 28 to 2048"),
    "absurd chunk": (lambda p: p.sft("stream.chunk_seconds=1000000000"), r"takes int, 0 to 86400"),
    "room for no text": (lambda p: p.sft("stream.pinned_chars=3"), r"takes int, 16 to"),
    "no lead": (lambda p: p.sft("stream.lead=0"), r"stream.lead=0: takes int, 1 to 3600"),
    "no weight in the loss": (
        lambda p: p.sft(*(f"loss.{key}=0" for key in WEIGHTS)),
        r"loss: every weight is 0, so that nothing is learnt; raise one of them",
    ),
    "lead as long as a chunk": (
        lambda p: p.sft("stream.lead=9", "stream.chunk_seconds=9"),
        r"stream.lead=9: a chunk opens with .* must be below stream.chunk_seconds=9, .*lower",
    ),
    "pixel bounds crossed": (
        lambda p: p.sft("model.min_pixels=9000", "model.max_pixels=5000"),
        r"model.min_pixels=9000: is above model.max_pixels=5000",
    ),
    "everything frozen": (
        lambda p: p.sft("model.freeze=[vision,projector,text]"),
        r"nothing is left to train",
    ),
    "path for the world": (lambda p: p.sft("data=drawn", "data.path=x"), r"add data=path"),
    "no path": (lambda p: p.sft("data=path"), r"data.path is empty: name the shards or JSON file"),
    "path for the base": (
        lambda p: [*BASE, "data.path=mine.json", f"run.dir={p.folder / 'run'}"],
        r"data.path=mine.json: recipe=base draws its own; leave it out",
    ),
    "values the base does not read": (
        lambda p: [*BASE, "model.freeze=[vision]", f"run.dir={p.folder / 'run'}"],
        r"recipe=base trains a whole small model and reads no model.freeze; take it out",
    ),
    "a loss the base does not read": (
        lambda p: [*BASE, "loss=weighted", f"run.dir={p.folder / 'run'}"],
        r"reads no loss other than plain",
    ),
    "marks that nobody can tell": (
        lambda p: p.sft("train.marks=1", f"data.path={p.folder / 'mine.json'}"),
        r"train.marks=1: only the rendered world tells what its frames show; take it out",
    ),
    "marks of half a cell": (
        lambda p: p.sft("train.marks=1", "data.size=80"),
        r"train.marks=1: marks cells of 32 pixels; give a data.size of whole cells",
    ),
    "half a cell": (
        lambda p: [*BASE, "data.size=120", f"run.dir={p.folder / 'run'}"],
        r"data.size=120: recipe=base labels cells of 32 pixels; give a multiple",
    ),
    "parts of a frame": (
        lambda p: p.sft("data.frames_per_second=0.5"),
        r"frames_per_second=0.5: the world's streams and live ones take a whole number from 1",
    ),
    **CORPUS_ROWS,
    # What of the world is used.
    "unknown family": (lambda p: p.sft("data.families=[alertin]"), r"no family.*mean alerting"),
    "family held out": (lambda p: p.sft("data.families=[screens]"), r"'screens' is held out of"),
    "weight of no family": (
        lambda p: p.sft("data.families=[qa]", "data.mix.chat=2"),
        r"data.mix.chat: is not among data.families=\['qa'\]",
    ),
    "all weights zero": (
        lambda p: p.sft("data.families=[qa]", "data.mix.qa=0"),
        r"data.mix=\{'qa': 0.0\}: every family that is used has the weight 0; raise one",
    ),
    "no streams": (
        lambda p: p.sft("data.train_streams=0"),
        r"data.train_streams=0: streams are 0.75 of the samples; raise it",
    ),
    "validation without streams": (
        lambda p: p.sft("train.eval_every=1", "data.validation_streams=0"),
        r"train.eval_every=1: there is nothing to validate on, with data.validation_streams=0",
    ),
    "row too small": (
        lambda p: p.sft("train.row_tokens=64", "data.turn_share=0"),
        r"tokens, more than train.row_tokens=64; raise it, or cut clips shorter",
    ),
    "photographs not fetched": (
        lambda p: nothing_fetched(p, "data=photo", "data.footage=false"),
        r"run `python -m data_pipeline.assets photo`, or take data=drawn",
    ),
    "photographs for the base": (
        lambda p: nothing_fetched(p, "recipe=base", "data=photo", "model.path=")[6:] + BASE[1:],
        r"run `python -m data_pipeline.assets photo`, or take data=drawn",
    ),
    "footage not fetched": (
        lambda p: nothing_fetched(p, "data.footage=true"),
        r"run `python -m data_pipeline.assets footage`, or set data.footage=false",
    ),
    # Processes and engines.
    "two processes, one engine": (
        lambda p: two_started(p),
        r"engine=single: is one process, but 2 were started .*use engine=ddp",
    ),
    "two processes for the base": (
        lambda p: two_started(p, "engine=ddp"),
        r"engine=ddp: recipe=base trains on one device",
    ),
    "processes without an engine": (
        lambda p: p.sft("engine.processes=2"),
        r"engine=single is one process; use engine=ddp, zero2 or zero3",
    ),
    "more processes than GPUs": (few_gpus, r"engine.processes=2: this machine has 1 GPUs"),
    "DeepSpeed not there": (no_deepspeed, r"need DeepSpeed: pip install 'joyvl\[deepspeed\]'"),
    "wandb not there": (no_wandb, r"run.wandb needs wandb: pip install 'joyvl\[wandb\]'"),
    "threads that are no number": (
        lambda p: with_variable(p, "OMP_NUM_THREADS", "many", p.sft()),
        r"OMP_NUM_THREADS=many: takes a whole number",
    ),
    # The run's folder.
    "folder that can't be made": (lambda p: p.sft("run.dir=/proc/run"), r"can't be written"),
    "file in the folder's place": (
        lambda p: p.sft(f"run.dir={p.sound()}"),
        r"a file stands in its way; give another run.dir",
    ),
    "run of another recipe": (
        lambda p: another_run(p, "", recipe="base"),
        r"holds a run of another config: recipe=sft \(was base\)",
    ),
    "run of another seed": (lambda p: another_run(p, "", seed=5), r"seed=0 \(was 5\)"),
    "folder of something else": (lambda p: another_run(p, "words"), r"is not the config of a run"),
    "full disk": (lambda p: full_disk(p, "config.yaml"), r"the disk is full; free some space"),
    "disk that fills up": (lambda p: full_disk(p, "metrics.json"), r"start again with the same"),
    "limit on the size of files": (limited_files, r"(File too large|ulimit -f)"),
    "folder for a link": (
        folder_for_link,
        r"latest/sft can't be made to point at the run.*move away",
    ),
    "metrics edited": (
        lambda p: torn_files(p, "metrics.json", "{1"),
        r"metrics.json: holds no JSON of a run; put it right, or give another run.dir",
    ),
    "log edited": (lambda p: torn_files(p, "log.jsonl", "x\n"), r"log.jsonl: holds no JSON of a"),
    # The model that training starts from.
    "no such model": (
        lambda p: p.sft("model.path=/no/where"),
        r"model.path=/no/where: there is no such folder",
    ),
    "no such checkpoint": (
        lambda p: p.sft(f"checkpoint={p.folder}"),
        r"holds no config.json, here or in checkpoint/; name a checkpoint",
    ),
    "torn model config": (
        lambda p: p.copied_model(lambda m: cut(m / "config.json")),
        r"no model config in .*/model",
    ),
    "no vision model": (lambda p: p.copied_model(text_model), r"holds a llama model; an image-"),
    "no weights": (
        lambda p: p.copied_model(lambda m: (m / "model.safetensors").unlink()),
        r"no model weights in .*/model",
    ),
    "truncated weights": (
        lambda p: p.copied_model(lambda m: cut(m / "model.safetensors")),
        r"no model weights in .*/model",
    ),
    "no tokenizer": (
        lambda p: p.copied_model(lambda m: (m / "tokenizer.json").unlink()),
        r"no tokenizer in .*/model",
    ),
    "tokenizer of another model": (
        lambda p: p.copied_model(other_tokenizer),
        r"belong to different checkpoints",
    ),
    "no image processor": (
        lambda p: p.copied_model(lambda m: (m / "preprocessor_config.json").write_text("{")),
        r"no image processor in .*/model",
    ),
    "LoRA on no layer": (
        lambda p: p.sft("model.lora.rank=2", "model.lora.targets=[qproj]"),
        r"no linear layer of the text model has such a name",
    ),
    # Data as a whole.
    "no such data": (
        lambda p: p.sft("data.path=/no/where.json"),
        r"'/no/where.json' doesn't exist",
    ),
    "no folder of pictures": (
        lambda p: p.data(raw(), "data.image_root=/no/where"),
        r"data.image_root='/no/where': the folder of pictures doesn't exist",
    ),
    "a table": (
        lambda p: p.data("video,time\na.mp4,3\n", name="mine.csv"),
        r"mine.csv' is neither a JSON list nor JSON lines",
    ),
    "an empty file": (lambda p: p.data(b""), r"is neither a JSON list nor JSON lines"),
    "a folder of videos": (
        lambda p: p.sft(f"data.path={p.video().parent}"),
        r"holds no corpus \(no index.json\); run the command that writes it",
    ),
    "all clips held out": (all_held_out, r"data.held_out=0.9: holds out all 1 clips of data.path"),
    "cache in a file's place": (
        lambda p: p.data(raw(p.video().name), f"data.cache_dir={p.sound('b.mp4')}"),
        r"the frame cache can't be written: .*name another folder \(data.cache_dir\)",
    ),
    "full disk of the cache": (full_cache, r"frame cache can't be written: .*No space left"),
    # Corpora.
    "unfinished corpus": (lambda p: p.shards(unfinished), r"is unfinished \(no index.json\)"),
    "torn index": (lambda p: p.shards(lambda c: cut(c / "index.json")), r"write the corpus anew"),
    "index of other data": (
        lambda p: p.shards(lambda c: edited(c / "index.json", shards=[{"name": "x"}])),
        r"is no index of shards; write the corpus anew",
    ),
    "newer index": (
        lambda p: p.shards(lambda c: edited(c / "index.json", version=99)),
        r"is of version 99, newer than 1; update",
    ),
    "missing shard": (
        lambda p: p.shards(lambda c: (c / "shard-00000.parquet").unlink()),
        r"1 missing shard",
    ),
    "truncated shard": (
        lambda p: p.shards(lambda c: cut(c / "shard-00000.parquet")),
        r"1 truncated shard.*\d+ of \d+ bytes",
    ),
    "picture with a wrong byte": (
        lambda p: p.shards(lambda c: flipped(c / "shard-00000.parquet", b"JFIF")),
        r"1 corrupt frame.*picture 0",
    ),
    "labels with a wrong byte": (
        lambda p: p.shards(lambda c: flipped(c / "shard-00000.parquet", b"PAR1")),
        r"1 corrupt record.*checksum of its row group",
    ),
    "footer with a wrong byte": (
        lambda p: p.shards(lambda c: flipped(c / "shard-00000.parquet", b"huggingface")),
        r"1 corrupt shard.*checksum of its footer",
    ),
    "shard of no pictures": (shard_of_no_pictures, r"record 0: picture 0 is no picture"),
    "rate that isn't stored": (
        lambda p: [*p.shards(), "data.frames_per_second=2"],
        r"hold 1 frames a second, .*set data.frames_per_second to a divisor of 1",
    ),
    "record of another shape": (lambda p: p.stored(kind="video"), r"1 shape.*kind 'video'"),
    "two events of one id": (
        lambda p: p.stored(events=[event(), event(time=4.0)]),
        r"1 duplicate event id.*'e'",
    ),
    "answer to nothing": (
        lambda p: p.stored(events=[event(answers="q")]),
        r"1 answers nothing.*'e' -> 'q'",
    ),
    "unknown role": (lambda p: p.stored(events=[event(role="robot")]), r"1 unknown role.*'robot'"),
    "unknown rule": (
        lambda p: p.stored(events=[event(rule={"kind": "vibes", "facts": []})]),
        r"1 unknown rule.*'vibes'",
    ),
    "state that ends before it starts": (
        lambda p: p.stored(events=[event(until=1.0)]),
        r"1 ends before it starts.*2.0 to 1.0 s",
    ),
    "two sources of frames": (
        lambda p: p.stored(video="a", files=["b"]),
        r"1 several frame sources",
    ),
    "no source of frames": (lambda p: p.data(raw(video_path="")), r"1 no (source|video)"),
    # Records of a file: their video.
    "nothing to score": (
        lambda p: [*p.data(raw(), "data.held_out=0.9"), "command=evaluate"],
        r"holds no sample to use: 1 rejected \(1 missing file\) on the side of test .*"
        r"rejects.jsonl names each",
    ),
    "nothing to validate on": (
        lambda p: p.data(raw(p.video().name), "train.eval_every=1"),
        r"data.held_out=0.0: no clip of data.path=.* to validate on; raise it, or",
    ),
    "questions alone asked of streams": (
        lambda p: p.data(raw(p.video().name), "data.turn_share=1"),
        r"data.turn_share=1: takes turn-based questions alone, of which data.path=.*holds none",
    ),
    "missing video": (lambda p: p.data(raw()), r"1 missing file.*a.mp4"),
    "a video's address": (
        lambda p: p.data(raw("https://example.org/a.mp4")),
        r"1 missing file.*example.org",
    ),
    "video outside the folder": (
        lambda p: p.data(raw("../../etc/passwd")),
        r"1 outside the folder.*etc/passwd",
    ),
    "empty video": (
        lambda p: (p.folder / "a.mp4").write_bytes(b"") or p.data(raw()),
        r"1 empty file.*a.mp4",
    ),
    "no video": (
        lambda p: (p.folder / "a.mp4").write_text("a letter\n" * 500) and p.data(raw()),
        r"1 not a video.*a.mp4",
    ),
    "folder as video": (
        lambda p: (p.folder / "a.mp4").mkdir() or p.data(raw()),
        r"1 no regular file.*a.mp4",
    ),
    "sound alone": (lambda p: p.data(raw(p.sound().name)), r"1 no video stream.*a.mp4"),
    "truncated video": (
        lambda p: cut(p.video(container={"movflags": "faststart"}), 0.7) or p.data(raw()),
        r"1 truncated.*a.mp4",
    ),
    "video without its index": (lambda p: cut(p.video(), 0.7) or p.data(raw()), r"1 not a video"),
    "video of more than a day": (
        lambda p: p.data(raw(p.video("a.mkv", [0.0, 1e5], base=Fraction(1, 1000)).name)),
        r"1 bad duration.*a.mkv",
    ),
    # Their pictures.
    "missing picture": (
        lambda p: p.data(chat([*p.pictures()[:-1], "none.jpg"])),
        r"1 missing file.*none.jpg",
    ),
    "picture outside the folder": (
        lambda p: p.data(chat([*p.pictures()[:-1], "/etc/passwd"])),
        r"1 outside the folder.*/etc/passwd",
    ),
    "no picture": (
        lambda p: p.data(chat([*p.pictures()[:-1], "mine.json"])),
        r"1 unreadable picture.*mine.json",
    ),
    "corrupt pictures": (broken_bodies, r"all 1 samples of 'streams' .* \(unreadable picture\)"),
    "picture too large": (
        lambda p: (
            Image.new("1", (9000, 9000)).save(p.folder / "large.png")
            or p.data(chat([*p.pictures()[:-1], "large.png"]))
        ),
        r"1 too many pixels.*large.png': 9000x9000",
    ),
    "huge picture": (huge_picture, r"1 (too many pixels|unreadable picture).*huge.png"),
    "pictures and turns differ": (
        lambda p: p.data(chat(p.pictures(), images=["p0.jpg"])),
        r"1 images and turns differ.*1 images, 6 places",
    ),
    # Their times.
    "event past the end": (lambda p: p.data(raw(p.video().name, time="60")), r"1 past the end"),
    "two events in a second": (lambda p: p.data(raw(time="3.1,3.8")), r"1 two in one second"),
    "time that is not a number": (lambda p: p.data(raw(time="noon")), r"1 time is no number.*noon"),
    "NaN": (lambda p: p.data(raw(time=float("nan"))), r"1 time is no number.*nan"),
    "infinite time": (lambda p: p.data(raw(time=float("inf"))), r"1 time is no number.*inf"),
    "negative time": (lambda p: p.data(raw(time="-1")), r"1 negative time.*-1"),
    "time of many years": (lambda p: p.data(raw(time=10**9)), r"more than a day"),
    "clip of many years": (lambda p: p.data(raw(duration=10**9)), r"1 bad duration"),
    "turns out of order": (
        lambda p: p.data(
            chat(p.pictures(2), users=["<4.0 seconds>\n<image>", "<1.0 seconds>\n<image>"])
        ),
        r"1 turns out of order.*second 1 after 4",
    ),
    "sample longer than a row": (
        lambda p: p.data(chat(p.pictures()), "train.row_tokens=64"),
        r"1 too long.*train.row_tokens=64; raise it, or cut clips shorter",
    ),
    # Their texts.
    "outside the grammar": (
        lambda p: p.data(chat(p.pictures(1), [f"{SILENCE} well"])),
        r"1 format",
    ),
    "control token unfinished": (lambda p: p.data(chat(p.pictures(1), ["</respon"])), r"1 format"),
    "empty text": (lambda p: p.data(raw(say=" \n")), r"1 empty text"),
    "roles that don't alternate": (
        lambda p: p.data([{"messages": [{"role": "user", "content": "hm"}], "images": []}]),
        r"1 no pairs of turns",
    ),
    "role of a chat unknown": (
        lambda p: p.data([{"messages": [{"role": "robot", "content": "hm"}] * 2}]),
        r"1 no pairs of turns.*robot",
    ),
    "result of no delegation": (
        lambda p: p.data(raw(background=RESULT)),
        r"1 answers nothing.*delegation 1",
    ),
    "result before its delegation": (
        lambda p: p.data(delegating("3")),
        r"1 result before its delegation",
    ),
    # Their JSON.
    "item that is no JSON": (lambda p: p.data('[{"a": nope}]'), r"1 not JSON"),
    "line that is no JSON": (lambda p: p.data('{"a": 1}\n{"b"\n'), r"1 not JSON"),
    "list that is cut off": (lambda p: p.data(json.dumps(raw())[:-20]), r"1 cut off"),
    "item that is no UTF-8": (lambda p: p.data(b'[{"a": "\xff"}]'), r"1 not UTF-8"),
    "nested too deeply": (deep, r"1 nested too deeply"),
    "no object": (lambda p: p.data([5]), r"1 no object.*int"),
    "unknown form": (lambda p: p.data([{"clip": "a"}]), r"1 unknown form.*keys clip"),
}


@pytest.mark.parametrize("name", TABLE)
def test_what_a_user_gets_wrong_is_one_line(
    place: Place, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    cause, words = TABLE[name]
    arguments = cause(place)
    capsys.readouterr()
    assert main(arguments, ROOT) == 2
    shown = capsys.readouterr().err
    errors = [line for line in re.split(r"[\r\n]+", shown) if line.startswith("error: ")]
    assert len(errors) == 1 and shown.rstrip().endswith(errors[0].rstrip()), shown
    assert re.search(words, errors[0]), errors[0]
    assert len(errors[0]) < 700, errors[0]
