"""The folder of one run: its config, metrics, log and checkpoint.

    config.yaml    the composed config
    metrics.json   flat keys, numbers only
    log.jsonl      a line a logging step
    report.html    written by the recipe
    checkpoint/    in Hugging Face layout, where the recipe trains
    finished       there once the run is done

A run that was killed is started again with the same `run.dir` and goes on. Of several ranks only
the first writes.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import yaml

from joyvl_train.config import Config, UserError, flat

HARMLESS = frozenset(
    {
        "run.dir",
        "run.root",
        "run.wandb",
        "run.threads",
        "data.workers",
        "data.cache_dir",
        "train.vision_cache",
        "train.vision_cache_gib",
        "eval.batch",
        "eval.strips",
        "corpus.shown",
        "agents.url",
        "agents.key_variable",
        "agents.cache",
        "agents.max_cost",
        "agents.max_tokens",
        "agents.concurrency",
        "agents.per_minute",
        "agents.timeout",
        "agents.retries",
        "agents.window",
        "agents.failures",
        "cases.workers",
        "executor.kind",
        "executor.workers",
        "executor.cpus",
        "executor.memory_gib",
        "executor.partition",
        "executor.time",
        "executor.options",
        "executor.address",
    }
)
"""Keys that may change when a run goes on: they move neither its tensors nor its metrics.
(run.threads does in the last bits, as another machine does.)"""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LIMITED_TEXT = os.strerror(errno.EFBIG)
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed")


@dataclass(frozen=True)
class Found:
    """A checkpoint to start from: a folder or hub id, and in words where it comes from."""

    path: str
    source: str


class Run:
    """One run and its folder; opened by `with`, and locked against other processes meanwhile.

    `home` is the checkout's root, from which the kept base is named. Entering raises `UserError`
    where the folder can't be written, is in use, or holds a run of another config. A run that ends
    with a `UserError` before it did anything leaves no folder.
    """

    def __init__(self, config: Config, home: Path | None = None) -> None:
        self.config = config
        self.home = home or Path()
        self.root = Path(config.run.root)
        self.is_main = int(os.environ.get("RANK", "0")) == 0
        if config.run.dir:
            self.dir = Path(config.run.dir)
        else:
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise UserError(
                    "run.dir is empty: several ranks share one folder, so name it, run.dir=DIR"
                )
            self.dir = fresh_dir(self.root / config.recipe)
        self._lock: TextIO | None = None
        self._made = False

    def __enter__(self) -> Self:
        try:
            self._made = not self.dir.exists()
            self.dir.mkdir(parents=True, exist_ok=True)
            if self.is_main:
                self._take_lock()
                self._compare_config()
                write_text(self.dir / "config.yaml", to_yaml(self.config))
        except OSError as error:
            self._release_lock()
            raise _folder_error(self.dir, error) from error
        except UserError:
            self._release_lock()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, UserError):
            self._undo()
        self._release_lock()
        if error is None or isinstance(error, UserError):
            return
        if disk_full(error):
            raise UserError(
                f"run.dir={self.dir}: the disk is full; free some space and start again with "
                "the same run.dir"
            ) from error
        if any(_LIMITED_TEXT in str(each) for each in _chain(error)):
            raise UserError(
                f"run.dir={self.dir}: a file would be larger than this shell allows "
                "(`ulimit -f`); raise the limit and start again with the same run.dir"
            ) from error

    @property
    def checkpoint(self) -> Path:
        """Where a recipe that trains leaves its model."""
        return self.dir / "checkpoint"

    @property
    def report(self) -> Path:
        return self.dir / "report.html"

    @property
    def finished(self) -> bool:
        return (self.dir / "finished").exists()

    def say(self, text: str) -> None:
        """Prints a line, once however many ranks there are."""
        if self.is_main:
            print(text, flush=True)

    def metrics(self, values: Mapping[str, float | int | None]) -> None:
        """Adds `values` to metrics.json. None, a measure without a value, is left out.

        A number that is not finite is a bug and raises `ValueError`.
        """
        wrong = [k for k, v in values.items() if v is not None and not math.isfinite(v)]
        if wrong:
            raise ValueError(f"metric {wrong[0]} is {values[wrong[0]]}, not a finite number")
        if not self.is_main:
            return
        known = {**self.read_metrics(), **{k: _plain(v) for k, v in values.items()}}
        kept = {k: v for k, v in known.items() if v is not None}
        write_text(self.dir / "metrics.json", json.dumps(kept, indent=1, sort_keys=True) + "\n")

    def read_metrics(self) -> dict[str, float | int | None]:
        path = self.dir / "metrics.json"
        return _json_of(path, path.read_text(encoding="utf-8")) if path.exists() else {}

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends a line to log.jsonl. A number that is not finite is written as null."""
        if not self.is_main:
            return
        row = {"step": step, **{k: _finite(v) for k, v in values.items()}}
        with (self.dir / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl; one torn by a kill is left out."""
        path = self.dir / "log.jsonl"
        if not path.exists():
            return []
        return [_json_of(path, line) for line in _whole_lines(path)]

    def keep_log(self, step: int) -> None:
        """Drops the lines past `step`, from which training goes on."""
        path = self.dir / "log.jsonl"
        if self.is_main and path.exists():
            kept = [line for line in _whole_lines(path) if _json_of(path, line)["step"] <= step]
            write_text(path, "".join(line + "\n" for line in kept))

    def finish(self, *, latest: bool) -> None:
        """Marks the run as finished, and as the newest of its recipe where `latest` is set.

        `latest` is for runs that trained; for `recipe=eval`, that scored. The saved steps go: with
        their optimizers they are many times the checkpoint.
        """
        if not self.is_main:
            return
        if latest:
            self._link_latest()
        # Marked last: broken off before, the run is begun again and comes to here.
        write_text(self.dir / "finished", datetime.now().isoformat(timespec="seconds") + "\n")
        self.clear()

    def reopen(self) -> None:
        """Takes a finished run up again, for a recipe that does; its figures are told anew."""
        if self.is_main:
            for name in ("finished", "metrics.json"):
                (self.dir / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Drops what only a run that goes on needs; of a finished run, what a kill left of it."""
        for name in ("steps", "tower"):
            shutil.rmtree(self.dir / name, ignore_errors=True)

    def _link_latest(self) -> None:
        link = self.root / "latest" / self.config.recipe
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(os.path.relpath(self.dir.resolve(), link.parent.resolve()))
            fresh.replace(link)
        except OSError as error:
            raise UserError(
                f"{link} can't be made to point at the run, which is done ({error.strerror}); move "
                "away what stands there, or make its folder writable, and start again with "
                f"run.dir={self.dir}"
            ) from error

    def find_checkpoint(self, order: Sequence[str]) -> Found:
        """What this run starts from, said aloud and kept for when it goes on.

        `checkpoint` and `model.path` come first. Then the first there is of `order`, whose items
        are recipe names, the latest finished run of that recipe, or `kept`, the base in the
        repository.
        """
        note = self.dir / "start.json"
        if note.exists():
            noted = _json_of(note, note.read_text(encoding="utf-8"))
            found = Found(str(noted.get("path")), str(noted.get("source")))
        else:
            found = self._search(order)
            if self.is_main:
                write_text(note, json.dumps(dataclasses.asdict(found)) + "\n")
        self.say(f"starts from {found.path} ({found.source})")
        return found

    def use_threads(self) -> int:
        """Sets and returns the number of threads that torch computes with on the CPU."""
        import torch

        # OpenMP takes a number for each level of nesting; torch has the first.
        given = (os.environ.get("OMP_NUM_THREADS") or "0").partition(",")[0].strip()
        if not given.isdecimal():
            raise UserError(f"OMP_NUM_THREADS={given}: takes a whole number; set it, or unset it")
        count = self.config.run.threads or int(given) or cores()
        torch.set_num_threads(count)
        return count

    def _search(self, order: Sequence[str]) -> Found:
        given = self.config.checkpoint
        if given:
            for folder in (Path(given), Path(given) / "checkpoint"):
                if (folder / "config.json").exists():
                    return Found(str(folder.resolve()), "checkpoint")
            raise UserError(
                f"checkpoint={given}: holds no config.json, here or in checkpoint/; "
                "name a checkpoint or the folder of a run that trained"
            )
        path = self.config.model.path
        if path:
            # A hub id is "name" or "owner/name"; anything else can only be a folder.
            is_folder = path.startswith((".", "/", "~")) or path.count("/") > 1
            if is_folder and not Path(path).is_dir():
                raise UserError(
                    f"model.path={path}: there is no such folder; name one in Hugging Face layout, "
                    "or a hub id"
                )
            return Found(path, "model.path")
        tried = []
        for name in order:
            if name == "kept":
                folder = self.home / self.config.model.kept
                source = f"the kept base of model={self.config.model.name}"
                there = bool(self.config.model.kept)
            else:
                folder = self.root / "latest" / name / "checkpoint"
                source = f"the latest run of recipe={name}"
                there = True
            if there and (folder / "config.json").exists():
                return Found(str(folder.resolve()), source)
            tried.append(source)
        raise UserError(
            f"nothing to start from: there is not {', nor '.join(tried)}; "
            "name one, checkpoint=DIR or model.path=DIR"
        )

    def _take_lock(self) -> None:
        # A record lock belongs to this process alone: it goes when the process is killed, though
        # its forked workers may live for a few seconds more.
        file = (self.dir / ".lock").open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise UserError(
                f"run.dir={self.dir}: another process is at work there (pid {holder}); "
                "wait for it or give another run.dir"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._lock = file

    def _undo(self) -> None:
        """Removes the folder of a run that was refused before it did anything."""
        if self.is_main and self._made and not _done(self.dir):
            shutil.rmtree(self.dir, ignore_errors=True)

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _compare_config(self) -> None:
        path = self.dir / "config.yaml"
        if not path.exists() or not _done(self.dir):
            return  # a run that did nothing yet binds nobody
        try:
            before = _flat_yaml(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (yaml.YAMLError, UnicodeDecodeError, AttributeError):
            raise UserError(f"{path}: is not the config of a run; give another run.dir") from None
        now, default = flat(self.config), flat(Config())
        changed = [
            f"{key}={now[key]} (was {_lookup(before, key, default[key])})"
            for key in now
            if key not in HARMLESS and _lookup(before, key, default[key]) != now[key]
        ]
        if changed:
            more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
            raise UserError(
                f"run.dir={self.dir}: holds a run of another config: {', '.join(changed[:6])}"
                f"{more}; give the same values to go on, or another run.dir"
            )


def _done(folder: Path) -> set[str]:
    """The names of what a run has written beyond what each begins with."""
    begun = {".lock", "config.yaml", ".config.yaml.tmp"}
    return {item.name for item in folder.iterdir()} - begun


def fresh_dir(parent: Path) -> Path:
    """A folder under `parent` named by the date and time, that no run has yet; not created."""
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}_{number}"
    return folder


def write_text(path: Path, text: str) -> None:
    """Writes `text` so that `path` holds the old content or the new one, whenever it is read."""
    fresh = path.with_name(f".{path.name}.tmp")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def disk_full(error: BaseException) -> bool:
    """Whether `error`, or one that it arose from, says that the disk is full."""
    return any(
        (isinstance(each, OSError) and each.errno in _FULL)
        or any(text in str(each) for text in _FULL_TEXTS)
        for each in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and those that it arose from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _folder_error(folder: Path, error: OSError) -> UserError:
    if disk_full(error):
        return UserError(f"run.dir={folder}: the disk is full; free some space or move run.dir")
    if isinstance(error, FileExistsError | NotADirectoryError):
        return UserError(f"run.dir={folder}: a file stands in its way; give another run.dir")
    return UserError(
        f"run.dir={folder}: can't be written ({error.strerror}); give a folder that can be"
    )


def _json_of(path: Path, text: str) -> dict[str, Any]:
    """The object that `text`, of the run's file `path`, holds."""
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise UserError(f"{path}: holds no JSON of a run; put it right, or give another run.dir")
    return data


def _whole_lines(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    return iter(text.split("\n")[:-1])


def _plain(value: float | int | None) -> float | int | None:
    if value is None or isinstance(value, int):
        return value
    return float(value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat_yaml(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, value in tree.items():
        rows[prefix + name] = value
        if isinstance(value, dict):
            rows.update(_flat_yaml(value, f"{prefix}{name}."))
    return rows


def _lookup(before: Mapping[str, Any], key: str, default: Any) -> Any:
    # A key that is younger than the run had its default then.
    return before.get(key, default)
