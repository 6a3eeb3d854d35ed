"""The parts of a plan under Slurm, by datatrove's executor, and under Ray, as its tasks.

Folders and the checkout lie on a file system that every machine sees under the same path. What is
done is read off the parts' own files, so that neither a lost message nor a lost job loses a part.

datatrove's executors for one machine and for Ray keep their tasks in a pool of processes and wait
for ever for the task of one that was killed: hence `data_pipeline.parts.Local` and Ray's own tasks.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.parts import TRIES, Ended, Tell, Work, attempt, failure_note
from joyvl_train.config import UserError
from joyvl_train.run import write_text

ROOT = Path(__file__).resolve().parents[1]

ANSWERS_IN = 60.0
"""Seconds after which a question to Slurm counts as not answered."""


@dataclass(frozen=True)
class Slurm:
    """One array of jobs, at most `workers` of them at a time.

    time: of one job, as sbatch takes it. cpus, memory_gib: of one job. jobs: the most that an array
    may hold here (MaxArraySize); with more parts than that, each job does several. options: more of
    sbatch's, {"account": "vision"}. poll: seconds between two looks at what is done.

    Waits for the array. Interrupted, it leaves the jobs to themselves; started again, it waits for
    them before it submits others: jobs are named after the run's folder, by which Slurm knows them
    whatever this process had written down before it ended.
    """

    partition: str
    time: str = "24:00:00"
    workers: int = 64
    cpus: int = 1
    memory_gib: int = 4
    jobs: int = 1000
    options: Mapping[str, str] = field(default_factory=dict)
    poll: float = 10.0

    def run(self, parts: Sequence[int], work: Work, folder: Path, tell: Tell) -> None:
        place = folder / "slurm"
        place.mkdir(parents=True, exist_ok=True)
        missing = list(parts)
        if left := _named(name_of(folder)):
            print(f"waits for the Slurm job {left} of the run before", flush=True)
            missing = self._wait(left, missing, work, tell)
        if missing:
            job = self._submit(missing, work, folder)
            for part in self._wait(job, missing, work, tell):
                note = failure_note(folder, part)
                lines = note.read_text().strip().splitlines() if note.exists() else []
                error = lines[-1] if lines else f"job {job} ended without it; {place} has its log"
                tell(Ended(part, error))

    def _submit(self, parts: Sequence[int], work: Work, folder: Path) -> str:
        try:
            from datatrove.executor import SlurmPipelineExecutor
        except ModuleNotFoundError:
            raise UserError("datatrove isn't installed: pip install 'joyvl[slurm]'") from None
        place = folder / "slurm"
        bin_ = Path(sys.executable).parent
        executor = SlurmPipelineExecutor(
            [Step(work, tuple(parts), folder)],
            tasks=len(parts),
            time=self.time,
            partition=self.partition,
            cpus_per_task=self.cpus,
            mem_per_cpu_gb=max(1, round(self.memory_gib / self.cpus)),
            workers=self.workers,
            job_name=name_of(folder),
            qos="",
            env_command=f"export PATH={shlex.quote(str(bin_))}:$PATH "
            f"PYTHONPATH={shlex.quote(str(ROOT))}:$PYTHONPATH",
            sbatch_args=dict(self.options),
            max_array_size=self.jobs,
            job_id_retriever=_job_id,
            logging_dir=str(place),
            skip_completed=False,  # by its own marks, which know nothing of what has changed since
            tasks_per_job=-(-len(parts) // self.jobs),
        )
        executor.launch_merge_stats = _no_more_jobs
        try:
            executor.run()
        except FileNotFoundError:
            raise UserError(
                "sbatch isn't here; start this where Slurm is, or run it locally"
            ) from None
        except subprocess.CalledProcessError as error:
            script = place / "launch_script.slurm"
            raise UserError(
                f"sbatch refused {script} (exit code {error.returncode}, its reason is above)"
            ) from None
        return str(executor.job_id)

    def _wait(self, job: str, parts: Sequence[int], work: Work, tell: Tell) -> list[int]:
        """The parts that aren't done when the job is through."""
        missing = list(parts)
        while missing:
            queued = _queued(job)  # asked first: what is done by then is seen below
            for part in [part for part in missing if work.done(part)]:
                missing.remove(part)
                tell(Ended(part))
            if not queued:
                break
            if missing:
                time.sleep(self.poll)
        return missing


def name_of(folder: Path) -> str:
    """What the jobs of a run in this folder are called, by whatever path it is reached."""
    place = str(folder.resolve()).encode()
    return f"joyvl-{hashlib.blake2b(place, digest_size=8).hexdigest()}"


def _named(name: str) -> str:
    """The numbers of the jobs that Slurm has under a name, with commas; "" for none. Raises
    `UserError` where it can't be asked: others must not be submitted beside them."""
    try:
        done = _squeue("--name", name)
    except FileNotFoundError:
        return ""
    except subprocess.TimeoutExpired:
        raise UserError(f"squeue gave no answer in {ANSWERS_IN:g} s; start again later") from None
    if done.returncode:
        raise UserError(f"squeue failed ({done.stderr.strip()[:200]}); start again later")
    return ",".join(sorted(set(done.stdout.split())))


def _queued(jobs: str) -> bool:
    """Whether Slurm still has any of these jobs, or can't be asked."""
    try:
        done = _squeue("--jobs", jobs)
    except FileNotFoundError:
        return False
    except subprocess.TimeoutExpired:
        return True
    if done.returncode:
        return "invalid job id" not in done.stderr.lower()
    return bool(done.stdout.strip())


def _squeue(*which: str) -> subprocess.CompletedProcess[str]:
    """Jobs of an array are one line each, with the number of the array."""
    return subprocess.run(
        ["squeue", "--noheader", "--format=%F", *which],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=ANSWERS_IN,
    )


def _job_id(said: str) -> str:
    """From "Submitted batch job 4711 on cluster west"."""
    found = re.search(r"\bjob (\d+)\b", said) or re.search(r"\b(\d+)\b", said)
    if found is None:
        raise UserError(f"sbatch told no number of a job, but {said!r}; look at what it prints")
    return found[1]


def _no_more_jobs() -> None:
    """In place of a second job, that would add up datatrove's own counts."""


@dataclass(frozen=True)
class Step:
    """datatrove's one step: task number `rank` does that part. Its error is kept in `folder`."""

    work: Work
    parts: tuple[int, ...]
    folder: Path

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        part = self.parts[rank]
        if self.work.done(part):
            return  # by this task, before its job was put back into the queue
        ended = attempt(self.work, part, self.folder, lambda count: None)
        if ended.fatal:
            write_text(failure_note(self.folder, part), ended.error + "\n")
            raise UserError(ended.error)


@dataclass(frozen=True)
class Ray:
    """A task a part, at most `workers` of them at a time, on the cluster at `address`; empty: on
    this machine."""

    workers: int = 64
    cpus: float = 1.0
    memory_gib: float = 0.0
    address: str = ""

    def run(self, parts: Sequence[int], work: Work, folder: Path, tell: Tell) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise UserError("ray isn't installed: pip install 'joyvl[ray]'") from None
        ours = not ray.is_initialized()
        if ours:
            path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
            told = {"PYTHONPATH": path}
            if cache := os.environ.get("JOYVL_CACHE"):  # where fetched tools lie
                told["JOYVL_CACHE"] = str(Path(cache).absolute())
            ray.init(
                address=self.address or None,
                runtime_env={"env_vars": told},
                include_dashboard=None if self.address else False,
                log_to_driver=False,
            )
        needs = {"num_cpus": self.cpus, "memory": int(self.memory_gib * 2**30) or None}
        # A task whose process dies is begun again by Ray itself.
        task = ray.remote(**needs, max_retries=TRIES - 1)(_ray_part)
        shared = ray.put(work)
        waiting = deque(parts)
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    part = waiting.popleft()
                    running[task.remote(shared, part, str(folder))] = part
                (done,), _ = ray.wait(list(running), num_returns=1)
                part = running.pop(done)
                try:
                    ended = ray.get(done)
                except ray.exceptions.RayError as error:
                    write_text(failure_note(folder, part), f"{error}\n")
                    what = f"{type(error).__name__}: {error}".split("\n")[0][:300]
                    ended = Ended(part, what)
                tell(ended)
        finally:
            for left in running:
                ray.cancel(left, force=True)
            if ours:
                ray.shutdown()


def _ray_part(work: Work, part: int, folder: str) -> Ended:
    return attempt(work, part, Path(folder), lambda count: None)
