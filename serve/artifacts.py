"""The full results of delegated tasks, kept on disk outside the context, within limits."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Artifact:
    """A kept result."""

    data: bytes
    media_type: str


class Artifacts:
    """Those of one session, in a folder of its own. `place` is where clients fetch them; each has
    at most `most_bytes`, all of them together `total_bytes`: the oldest go."""

    def __init__(
        self,
        folder: Path,
        place: str,
        *,
        most_bytes: int = 5 * 2**20,
        total_bytes: int = 50 * 2**20,
    ) -> None:
        self._folder, self._place = folder, place
        self._most, self._total = most_bytes, total_bytes

    def keep(self, number: int, data: bytes, media_type: str) -> str:
        """Keeps a result; where it is fetched. Raises `ValueError` for one that is too large, and
        `OSError` where it can't be written."""
        if len(data) > self._most:
            raise ValueError(f"{len(data)} bytes, at most {self._most}")
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(len(data))
        told = self._folder / f"{number}.json"
        for path, content in (
            (self._folder / f"{number}.data", data),
            (told, json.dumps({"media_type": media_type, "kept": time.time()}).encode()),
        ):
            unfinished = path.with_name(f".{path.name}.tmp")
            try:
                unfinished.write_bytes(content)
                unfinished.replace(path)
            except OSError:  # a full disk is not filled up further by what is no use
                unfinished.unlink(missing_ok=True)
                raise
        return f"{self._place}/{number}"

    def get(self, number: int) -> Artifact | None:
        """A kept result; None where there is none."""
        told = self._folder / f"{number}.json"
        try:
            media_type = json.loads(told.read_bytes())["media_type"]
            return Artifact((self._folder / f"{number}.data").read_bytes(), media_type)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def drop(self) -> None:
        """Deletes all of them."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make_room(self, wanted: int) -> None:
        kept = sorted(self._folder.glob("*.data"), key=lambda path: path.stat().st_mtime_ns)
        used = sum(path.stat().st_size for path in kept)
        for path in kept:
            if used + wanted <= self._total:
                return
            used -= path.stat().st_size
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
