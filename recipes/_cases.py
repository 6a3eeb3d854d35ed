"""What a config says of cases and of those that are played them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eval.case import Case, CaseError, case_files, read_case, read_cases
from eval.handing import HANDING
from eval.opening import Cutting, Spec
from eval.pinned import FOLDER
from eval.recorded import read_recorded
from eval.suite import Transcripts, View, frames_of, lacking, play_all, slug
from joyvl_train.checkpoint import load_processor
from joyvl_train.config import Config, UserError, nearest
from joyvl_train.rendering import Renderer
from joyvl_train.run import Run, cores
from recipes._made import as_trained
from recipes._speaking import check_codec
from recipes._world import settings

MINE = "model"

TOLD = FOLDER.parent / "prompts" / "interaction.txt"
"""The grammar, for models that never learnt it."""

CANNED = {
    "always silent": "Nothing.",
    "always speaking": "Yes.",
    "poll of canned text": "I am watching.",
}
"""What the policies say that look at nothing."""


def places(config: Config) -> list[Path]:
    """The files and folders that cases are read from."""
    shipped = [] if config.cases.suite == "none" else [FOLDER / config.cases.suite]
    return [*shipped, *map(Path, config.cases.paths)]


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


def check_cases(config: Config, view: View) -> list[str]:
    """What is wrong with cases, a line each; videos are opened for it."""
    wrong = []
    for path in case_files(places(config)):
        try:
            case = read_case(path)
            missing = lacking(case)
            if missing:
                wrong.append(missing)
            elif case.video is not None:
                frames_of(case, view)
        except CaseError as error:
            wrong.append(str(error))
    return wrong


def systems(config: Config, run: Run, cases: Sequence[Case]) -> list[Spec]:
    """Who is played these cases, the model first. Raises `CaseError` for a transcript that is
    none."""
    ours = set(config.cases.systems) - {"poller", "ask_only", "trivial"}
    trained = (
        run.find_checkpoint(["grpo", "sft", "base", "kept"]).path
        if ours or config.checkpoint
        else ""
    )
    base = config.cases.base or (str(run.home / config.model.kept) if config.model.kept else "")
    if not base and {"poller", "ask_only"} & set(config.cases.systems):
        raise UserError(
            f"cases.base is empty: model={config.model.name} has no kept base; name the checkpoint "
            "of the turn-based baselines, or leave them out of cases.systems"
        )
    shared: dict[str, Any] = {
        "max_new_tokens": config.eval.max_new_tokens,
        "temperature": config.eval.temperature,
        "system": config.prompt.system,
        "min_pixels": config.model.min_pixels,
        "max_pixels": config.model.max_pixels,
    }
    # Others are played to as the run says, whatever checkpoint of ours plays beside them.
    others = [endpoint(config, cutting_of(config))] if config.cases.url else []
    if trained:
        as_trained(config, run, trained)
    cutting = cutting_of(config)
    if trained and config.data.codec != "off":
        check_codec(config, Renderer(load_processor(trained)))
    period = config.cases.poll_seconds
    specs = []
    streaming = [n for n in (MINE, *HANDING) if n.replace(" ", "_") in config.cases.systems]
    bias = silence_bias(config, run, trained) if streaming else 0.0
    for name in streaming:
        handing = name if name in HANDING else ""
        of_stream: dict[str, Any] = {"bias": bias, "cutting": cutting, "handing": handing}
        specs.append(Spec(name, "stream", trained, **of_stream, **shared))
    for key, name, checkpoint in (
        ("poller", "poller", base),
        ("poller_same", "poller, same weights", trained),
    ):
        if key in config.cases.systems:
            specs.append(Spec(name, "poller", checkpoint, period=period, **shared))
    for key, name, checkpoint in (
        ("ask_only", "ask only", base),
        ("ask_only_same", "ask only, same weights", trained),
    ):
        if key in config.cases.systems:
            specs.append(Spec(name, "ask_only", checkpoint, **shared))
    if "trivial" in config.cases.systems:
        specs += [Spec(name, "trivial", text=text) for name, text in CANNED.items()]
    specs += others
    if config.cases.served:
        token = config.serve.token_variable
        where: dict[str, Any] = {"model": config.cases.served, "key_variable": token}
        specs.append(Spec("served", "served", timeout=60.0, **where))
    specs += [Spec(Path(path).stem, "recorded", path=path) for path in config.cases.recorded]
    check_recorded(config, run, cases)
    names = [slug(spec.name) for spec in specs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"cases.recorded: {twice[0]!r} is the name of two systems; rename one")
    if not specs:
        raise UserError("cases.systems is empty, and cases.recorded, too: name who is played")
    return specs


def cutting_of(config: Config) -> Cutting:
    """How streams are cut, and what memory holds of them, by the config as it stands."""
    stream = settings(config)
    summaries: Any = config.cases.summaries
    return Cutting(stream.chunk_seconds, stream.lead, stream.limits, summaries, stream.codec)


def play_cases(config: Config, run: Run, cases: Sequence[Case], view: View) -> Transcripts:
    """What each system does on each case; what the run has played already stands."""
    return play_all(
        cases,
        systems(config, run, cases),
        run.dir / "transcripts",
        view,
        seed=config.seed,
        workers=workers(config),
        say=run.say,
    )


def check_recorded(config: Config, run: Run, cases: Sequence[Case]) -> None:
    """Reads the transcripts, and says what of them will not be heard."""
    lengths = {case.id: case.seconds for case in cases}
    for path in config.cases.recorded:
        system = read_recorded(path)
        strange = [id for id in system.cases if id not in lengths]
        if strange:
            hint = nearest(strange[0], list(lengths))
            run.say(
                f"{path}: {len(strange)} of its cases not played, such as {strange[0]!r}.{hint}"
            )
        lost = [id for id in system.cases if (lengths.get(id) or 1 << 30) <= system.last(id)]
        if lost:
            run.say(f"{path}: speaks past the end of {lost[0]!r}, which is not heard")


def workers(config: Config) -> int:
    """Processes that play cases: as `cases.workers` says, else one a core, or one for a GPU."""
    return config.cases.workers or (1 if torch.cuda.is_available() else cores())


def endpoint(config: Config, cutting: Cutting) -> Spec:
    """The model at `cases.url`, on the stream like our own."""
    if not config.cases.model:
        raise UserError("cases.model is empty: name the model at cases.url")
    told = "" if config.cases.taught else TOLD.read_text(encoding="utf-8").strip()
    return Spec(
        "endpoint",
        "endpoint",
        url=config.cases.url,
        model=config.cases.model,
        key_variable=config.cases.key_variable,
        raw=config.cases.taught,
        system="\n\n".join(filter(None, (told, config.prompt.system))),
        # An answer that is kept took no time.
        cache="" if config.cases.latency == "measured" else config.agents.cache,
        namespace=config.agents.namespace,
        timeout=config.agents.timeout,
        retries=config.agents.retries,
        max_tokens=config.agents.max_tokens,
        max_new_tokens=config.eval.max_new_tokens,
        temperature=config.eval.temperature,
        cutting=cutting,
    )


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
