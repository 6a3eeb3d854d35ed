"""Cases played to systems, in processes side by side; what is played already is not played again.

A transcript is a JSON file under `transcripts/<system>/<case>.json`. It is taken as it is while its
key is the same: a hash of the case and its footage, of the system and its weights, of the size of
the pictures, the seed and this module's version. Each case is played by itself, so that what comes
of it hangs on nothing else: the same bytes whatever the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipeline.assets import cache_folder
from data_pipeline.packages import CLIPS
from data_pipeline.world.backgrounds import footage_clips
from data_pipeline.world.streams import WorldFrames
from eval.case import Case
from eval.fields import CaseError
from eval.grades import Unscored
from eval.opening import Spec, open_system
from eval.play import Played, play
from eval.systems import Recorded
from joyvl_train.frames import FirstSeconds, Frames, open_video
from joyvl_train.heldout import from_json, to_json
from joyvl_train.llm import BudgetError, LLMError
from joyvl_train.run import write_text
from joyvl_train.timeline import TimelineError
from joyvl_train.video import FrameError, regular_file

VERSION = 1

Transcripts = dict[str, dict[str, Played | Unscored]]
"""System -> case -> what it did, or why nothing is known of it."""


@dataclass(frozen=True)
class View:
    """How cases are shown: the longest side of pictures, where decoded videos are kept, and of what
    the sides of their pictures are multiples."""

    side: int
    cache_dir: str
    multiple: int = 1


def frames_of(case: Case, view: View) -> Frames:
    """The pictures of a case by second. `CaseError` where they can't be had."""
    missing = lacking(case)
    if missing:
        raise CaseError(missing)
    if case.video is None:
        return WorldFrames(case.timeline, view.side)
    path = video_path(case)
    wanted = case.seconds
    try:
        if case.video.sha256 and file_hash(regular_file(path)) != case.video.sha256:
            raise CaseError(
                f"{case.path.name}: {path} is another file than the case was made of (its SHA-256 "
                "is not the one that is given); get that one"
            )
        whole = open_video(
            path, 1, cache_dir=Path(view.cache_dir), size=view.side, multiple=view.multiple
        )
    except (FrameError, OSError) as error:
        raise CaseError(f"{case.path.name}: {error}") from None
    _check_length(case, whole.seconds if wanted is None else wanted)
    if wanted is None or wanted == whole.seconds:
        return whole
    if wanted > whole.seconds:
        raise CaseError(
            f"{case.path.name}: seconds is {wanted}, but {path} lasts {whole.seconds}; lower it"
        )
    return FirstSeconds(whole, wanted)


def _check_length(case: Case, seconds: int) -> None:
    """`CaseError` where something of the case comes after its last second."""
    last = max((event.second for event in case.timeline.events), default=0)
    stop = max((span.stop for span in case.quiet), default=0)
    if last >= seconds or stop > seconds:
        what = f"something in second {last}" if last >= seconds else f"quiet up to second {stop}"
        raise CaseError(
            f"{case.path.name}: has {what}, but its stream lasts {seconds} s; mend one of them"
        )


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def video_path(case: Case) -> Path:
    """Where the case's video lies."""
    assert case.video is not None
    if "://" in case.video.path:
        return cache_folder() / "cases" / case.video.sha256
    if not case.video.sample:
        return case.path.parent / case.video.path
    name = next(Path(c.member).name for c in CLIPS if c.name == case.video.sample)
    return cache_folder() / "samples" / name


def lacking(case: Case) -> str:
    """What the case needs and isn't there, in a line; "" where nothing is lacking."""
    absent = sorted(set(case.footage) - set(footage_clips()))
    if absent:
        return (
            f"{case.path.name}: plays before footage that isn't there ({', '.join(absent)}): run "
            "`python -m data_pipeline.assets footage`"
        )
    if case.video is None:
        return ""
    if case.video.sample and case.video.sample not in {clip.name for clip in CLIPS}:
        return f"{case.path.name}: there is no sample {case.video.sample!r}"
    path = video_path(case)
    try:
        there = path.is_file()
    except OSError as error:
        return f"{case.path.name}: the video can't be looked at ({error.strerror}); see to its path"
    if there:
        return ""
    if "://" in case.video.path:
        return f"{case.path.name}: {case.video.path} was not fetched: run recipe=eval command=fetch"
    mend = (
        "run `python -m data_pipeline.assets samples`" if case.video.sample else "see to the path"
    )
    return f"{case.path.name}: there is no video {path}; {mend}"


def key_of(case: Case, system: str, view: View, seed: int) -> str:
    """What a transcript hangs on; `system` is the key of its `Spec`."""
    shown = [case.digest, str(view.side)]
    if case.video is not None:
        shown += [str(view.multiple)] if view.multiple > 1 else []
        shown.append(file_hash(video_path(case)))
    for name in case.footage:
        clip = next(clip for clip in CLIPS if clip.name == name)
        shown.append(clip.package.sha256)
    told = "\n".join([str(VERSION), case.id, *shown, system, str(seed)])
    return hashlib.sha256(told.encode()).hexdigest()


def play_all(
    cases: Sequence[Case],
    specs: Sequence[Spec],
    folder: Path,
    view: View,
    *,
    seed: int = 0,
    workers: int = 1,
    say: Callable[[str], None] = print,
    progress: bool = True,
) -> Transcripts:
    """What each system did on each case. A case that can't be played is `Unscored` for all systems,
    and said once."""
    found: Transcripts = {spec.name: {} for spec in specs}
    good = []
    for case in cases:
        missing = lacking(case)
        if missing:
            say(f"not played: {missing}")
            for spec in specs:
                found[spec.name][case.id] = Unscored("case can't be played", missing)
        else:
            good.append(case)
    todo: list[_Job] = []
    for spec in specs:
        system = spec.key
        for case in good:
            path = folder / slug(spec.name) / f"{case.id}.json"
            try:
                key = key_of(case, system, view, seed)
            except OSError as error:
                detail = f"{case.path.name}: {error}"
                found[spec.name][case.id] = Unscored("case can't be played", detail)
                say(f"not scored: {spec.name}, {case.id}: {detail}")
                continue
            kept = _read(path, key)
            if kept is None:
                todo.append(_Job(case, spec, view, seed, str(path), key))
            else:
                found[spec.name][case.id] = kept
    lengths = {case.id: case.seconds or 60 for case in good}
    # Long ones first, so that no process is left alone with one; a system's cases in a row.
    todo.sort(key=lambda job: (-lengths[job.case.id], job.spec.name))
    total = sum(lengths[job.case.id] for job in todo)
    with tqdm(total=total, desc="cases", unit="s", disable=not progress or not todo) as bar:
        for job, played in _played(todo, workers):
            bar.update(lengths[job.case.id])
            if isinstance(played, Unscored):
                say(f"not scored: {job.spec.name}, {job.case.id}: {played.detail}")
            found[job.spec.name][job.case.id] = played
    return {
        name: {case.id: done[case.id] for case in cases if case.id in done}
        for name, done in found.items()
    }


def slug(name: str) -> str:
    """A system's name as a folder's."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    # A name without any such letter has a folder of its own, too.
    return plain or "system_" + hashlib.sha256(name.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class _Job:
    case: Case
    spec: Spec
    view: View
    seed: int
    path: str
    key: str


def _played(todo: Sequence[_Job], workers: int) -> Any:
    if workers <= 1 or len(todo) < 2:
        for job in todo:
            yield job, _work(job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(todo)), mp_context=context) as pool:
        running: dict[Future[Played | Unscored], _Job] = {}
        try:
            running = {pool.submit(_work, job): job for job in todo}
            for done in as_completed(running):
                yield running[done], done.result()
        finally:
            for future in running:
                future.cancel()


def _one_thread() -> None:
    """The last bits of a sum hang on the number of threads."""
    import torch

    torch.set_num_threads(1)


def _work(job: _Job) -> Played | Unscored:
    """Plays a case and leaves its transcript; a case that fails tells why."""
    _one_thread()
    system = open_system(job.spec)
    if isinstance(system, Recorded) and job.case.id not in system.cases:
        return Unscored("not recorded", "the transcript has no line of it")
    try:
        played = play(job.case, frames_of(job.case, job.view), system, job.seed)
    except BudgetError:
        raise
    except LLMError as error:
        return Unscored("no answer", str(error))
    except (CaseError, TimelineError, FrameError) as error:
        return Unscored("case can't be played", str(error))
    write(Path(job.path), played, job.key)
    return played


def write(path: Path, played: Played, key: str) -> None:
    """Leaves the transcript under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = {"key": key, "seconds": list(played.latencies)}
    write_text(path.with_suffix(".times"), json.dumps(times) + "\n")
    told = {"key": key, "trace": to_json(played.trace)}
    write_text(path, json.dumps(told, ensure_ascii=False) + "\n")


def _read(path: Path, key: str | None) -> Played | None:
    """The transcript of this key, or of any, if that is what is there."""
    try:
        data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        times = json.loads(path.with_suffix(".times").read_text(encoding="utf-8"))
        if times["key"] != data["key"] or key not in (None, data["key"]):
            return None
        return Played(from_json(data["trace"]), tuple(map(float, times["seconds"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_transcripts(folder: Path) -> Transcripts:
    """What a finished run has played. `CaseError` where it has played nothing, or one is torn."""
    found: Transcripts = {}
    for path in sorted(folder.glob("*/*.json")):
        played = _read(path, None)
        if played is None:
            raise CaseError(f"{path}: is no transcript; run recipe=eval there again")
        found.setdefault(played.trace.policy, {})[path.stem] = played
    if not found:
        raise CaseError(f"{folder}: holds no transcripts; name a run of recipe=eval")
    return found
