"""The page of a benchmark's results, as it is kept under results/."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from joyvl_train.markup import plot, stroke, text
from joyvl_train.run import write_text

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Name of a line -> its points."""


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


def chosen_bias(run: Path) -> float:
    """What a finished run of `recipe=sft` adds to the logit of silence."""
    return float(json.loads((run / "metrics.json").read_text())["eval/silence_bias"])


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


_STYLE = """
text { font: 13px system-ui, "Liberation Sans", Arial, sans-serif; fill: #1c2430; }
.dim { fill: #5a6472; } .end { text-anchor: end; } .mid { text-anchor: middle; }
.rule { stroke: #d9dee5; } .line { fill: none; stroke-width: 2; } .title { font-weight: 650; }
"""
_WIDE, _HIGH = 430, 226


def drawing(out: Path, plots: Mapping[str, Series], x: str) -> None:
    """Writes plots, one beside the other, as an SVG file: title -> line -> points."""
    parts, deepest = [], 0
    for number, (title, series) in enumerate(plots.items()):
        found = re.search(r'<svg class="plot"[^>]*>(.*?)</svg>', plot(series, x=x), re.DOTALL)
        keys = [
            f'<path class="line" d="M14 {line}h26" {stroke(place)}/>'
            f'<text x="48" y="{line + 4}">{text(name)}</text>'
            for place, name in enumerate(series)
            for line in (_HIGH + 40 + 20 * place,)
        ]
        deepest = max(deepest, len(series))
        parts.append(
            f'<g transform="translate({number * _WIDE} 0)"><text class="title" x="14" y="18">'
            f'{text(title)}</text><g transform="translate(0 24)">{found and found[1]}</g>'
            f"{''.join(keys)}</g>"
        )
    wide, high = _WIDE * len(plots), _HIGH + 50 + 20 * deepest
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(
        out,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}">'
        f'<style>{_STYLE}</style><rect width="{wide}" height="{high}" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n",
    )


def keep(out: Path, text: str) -> None:
    """Writes a page, whole or not at all, and shows it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    print(f"\n{text}")


def finish(out: Path, text: str, kept: bool) -> None:
    """Ends a script with its page: kept, or shown alone."""
    if kept:
        keep(out, text)
    else:
        print(text)
