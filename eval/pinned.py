"""The hashes of the shipped cases, as they were before anything was scored on them.

    python -m eval.pinned            # writes eval/cases/SHA256SUMS anew

A report lists every case whose file is another one now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from eval.case import Case, case_files
from joyvl_train.run import write_text

FOLDER = Path(__file__).parent / "cases"
SUMS = FOLDER / "SHA256SUMS"
SUITES = ("scenarios", "delegation")


def pinned(path: Path = SUMS) -> dict[str, str]:
    """File, relative to the folder of cases -> its SHA-256."""
    pairs = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in pairs}


def changes(
    cases: list[Case], known: Mapping[str, str] | None = None, suite: str = ""
) -> list[str]:
    """The shipped cases among these that are not what was pinned, in words, and where all cases of
    a `suite` should be among them, those that are gone. Cases of one's own are none."""
    known = pinned() if known is None else known
    there = set()
    told = []
    for case in cases:
        try:
            name = case.path.resolve().relative_to(FOLDER.resolve()).as_posix()
        except ValueError:
            continue
        there.add(name)
        if name not in known:
            told.append(f"{name}: new since the cases were pinned")
        elif known[name] != case.digest:
            told.append(f"{name}: changed since the cases were pinned")
    if suite:
        gone = [name for name in known if name.startswith(f"{suite}/") and name not in there]
        told += [f"{name}: taken away since the cases were pinned" for name in gone]
    return told


def main() -> None:
    lines = []
    for path in case_files([FOLDER]):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{digest}  {path.relative_to(FOLDER).as_posix()}\n")
    write_text(SUMS, "".join(lines))


if __name__ == "__main__":
    main()
