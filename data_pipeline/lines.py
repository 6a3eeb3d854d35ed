"""Files of JSON lines that are there whole, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from joyvl_train.config import UserError


class LinesWriter:
    """Writes JSON lines under a temporary name; leaving the `with` in peace gives the file its own.

        with LinesWriter(path) as lines:
            lines.add({"id": 1})

    lines, size (bytes) and digest tell of what was written. Two writers of one path at a time are
    not looked for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self.size = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self._fresh = path.with_name(f".{path.name}.tmp")
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = self._fresh.open("wb", buffering=1 << 20)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None, "entered"
        if error is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if error is None:
            self._fresh.replace(self.path)
        else:
            self._fresh.unlink(missing_ok=True)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def add(self, data: Any) -> None:
        """One line. Other scripts are escaped, so that half a surrogate pair goes out and in."""
        assert self._file is not None, "entered"
        line = json.dumps(data, separators=(",", ":")).encode() + b"\n"
        self._hash.update(line)
        self._file.write(line)
        self.lines += 1
        self.size += len(line)


def read_lines(path: Path) -> Iterator[Any]:
    """The data of each line. `UserError` where a line is none: the file was changed by hand."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{path} line {number} is no JSON ({error}); delete the file and start again"
                ) from None


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object of a small file; None where there is no such file, or no object in it."""
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return data if isinstance(data, dict) else None
