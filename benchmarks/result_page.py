"""The page of a benchmark's results, as it is kept under results/."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from joyvl_train.run import write_text


def row(cells: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def versions(*names: str) -> list[str]:
    """What is installed of these packages, for `page`."""
    return [f"{name} {importlib.metadata.version(name)}" for name in names]


def named_runs(given: Sequence[str]) -> dict[str, Path]:
    """Runs by name, of folders or NAME=FOLDER. `ValueError` where two are called the same."""
    named = [text.rpartition("=") for text in given]
    found = [(name or Path(folder).name, Path(folder)) for name, _, folder in named]
    if len(dict(found)) < len(found):
        raise ValueError("two runs of one name; give NAME=FOLDER")
    return dict(found)


def of_runs(
    script: str,
    told: str,
    results: Path,
    write: Callable[[Mapping[str, Path]], str],
    arguments: Sequence[str] | None,
) -> int:
    """The command line of a script that writes a page of runs' folders; its exit status.

    told: the script's own text. write: runs by name -> the page; `ValueError` where one is none.
    """
    parser = argparse.ArgumentParser(description=told.partition("\n")[0])
    parser.add_argument("runs", nargs="+", help="folders of runs, or NAME=FOLDER")
    parser.add_argument("--out", type=Path, default=results)
    given = parser.parse_args(arguments)
    try:
        text = write(named_runs(given.runs))
    except ValueError as error:
        print(f"{script}: {error}", file=sys.stderr)
        return 2
    keep(given.out, text)
    return 0


def page(
    title: str, command: str, packages: Sequence[str], rows: Sequence[str], note: Sequence[str]
) -> str:
    """A page in Markdown: the command, the day, versions and machine, the table, what it means.

    packages: names with their versions; Python's own is added.
    """
    versions = ", ".join([f"Python {platform.python_version()}", *packages])
    machine = f"{os.cpu_count()} cores ({platform.machine()})"
    told = f"`python benchmarks/{command}`, {datetime.date.today()}. {versions}, {machine}."
    return "\n".join([f"# {title}", "", told, "", *rows, "", *note, ""])


def keep(out: Path, text: str) -> None:
    """Writes a page, whole or not at all, and shows it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    print(f"\n{text}")
