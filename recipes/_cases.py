"""What a config says of cases and of those that are played them."""

from __future__ import annotations

import json
from pathlib import Path

from eval.case import Case, CaseError, case_files, read_case, read_cases
from eval.pinned import FOLDER
from eval.suite import lacking
from joyvl_train.config import Config, UserError, nearest
from joyvl_train.run import Run

CANNED = {
    "always silent": "Nothing.",
    "always speaking": "Yes.",
    "poll of canned text": "I am watching.",
}


def places(config: Config) -> list[Path]:
    """The files and folders that cases are read from."""
    given = config.cases
    shipped = [] if given.suite == "none" else [FOLDER / given.suite]
    return [*shipped, *map(Path, given.paths)]


def chosen_cases(config: Config) -> list[Case]:
    """The cases that are played. Raises `CaseError` for the first bad one."""
    cases = read_cases(places(config))
    only = config.cases.only
    known = {case.id for case in cases} | {case.scenario for case in cases}
    for name in only:
        if name not in known:
            raise UserError(
                f"cases.only={name}: is no id and no scenario of the cases.{nearest(name, known)}"
            )
    return [case for case in cases if not only or {case.id, case.scenario} & set(only)]


def check_cases(config: Config) -> list[str]:
    """What is wrong with cases, a line each."""
    wrong = []
    for path in case_files(places(config)):
        try:
            wrong += filter(None, [lacking(read_case(path))])
        except CaseError as error:
            wrong.append(str(error))
    return wrong


def silence_bias(config: Config, run: Run, checkpoint: str) -> float:
    """The bias towards silence of the model: `eval.silence_bias`, or what the run that trained it
    chose on its validation streams."""
    if config.eval.silence_bias:
        return config.eval.silence_bias
    path = Path(checkpoint).parent / "metrics.json"
    try:
        chosen = float(json.loads(path.read_text(encoding="utf-8"))["eval/silence_bias"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
    if chosen:
        run.say(f"eval.silence_bias={chosen:g}, as {path.parent} chose it")
    return chosen
