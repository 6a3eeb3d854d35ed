"""What recipe=corpus works with: its source, agents, tools, pictures and executor."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data_pipeline.agents.agent import Agent
from data_pipeline.agents.asr import Asr, sound_of
from data_pipeline.agents.detector import Detector
from data_pipeline.agents.motion import Motion
from data_pipeline.agents.ocr import Ocr
from data_pipeline.agents.plain import PLAIN, PlainAgent
from data_pipeline.agents.prompts import FOLDER, PROMPTS, load
from data_pipeline.agents.tool_files import files
from data_pipeline.apart import Apart, open_apart
from data_pipeline.balance import Targets
from data_pipeline.candidates import Candidate, Refused
from data_pipeline.clip_frames import ClipFrames
from data_pipeline.clusters import Ray, Slurm
from data_pipeline.corruption import corrupting
from data_pipeline.families.targets import Tools
from data_pipeline.parts import Executor, Local
from data_pipeline.sources import convert, folder, speech, subtitles, world
from data_pipeline.sources.cut import cut_after, cut_around
from data_pipeline.sources.videos import Videos, is_video
from data_pipeline.world.corpus import FOOTAGE_MIX, PLAIN_MIX, family_weights
from joyvl_train.config import Config, UserError
from joyvl_train.corpus_config import FAMILIES, TOOLS
from joyvl_train.frames import Rate
from joyvl_train.shard_reader import file_hash
from recipes._client import client_of
from recipes._world import check_assets, rate

HELD = {
    **dict.fromkeys(("events", "charades_sta", "activitynet", "qvhighlights"), ("alerting",)),
    **dict.fromkeys(("speech", "subtitles"), ("commentary",)),
    "video_qa": ("qa",),
}
"""The family that annotations hold; those of the other sources are timelines ready as they are, on
which no family's stages work unasked."""

ASKED_AT_WILL = ("events", "charades_sta", "activitynet", "qvhighlights", "subtitles")
"""Annotations that tell what happens, and not when it is asked for; clips are cut around it."""

WITHOUT_AGENTS = ("pictures", "normalise", "sentences", "enough said", "conditions", "insert")
"""Stages of the families that annotations go through where there is no agent: what the others
begin only an agent can end."""

NEED_AGENTS = {
    "alerting": ("precheck", "localize", "hold", "negatives"),
    "commentary": ("grounding",),
    "delegation": ("hand over",),
}
"""Stages of the families that annotations go through besides, where there are agents."""

LOCAL_SIZE = 384


def check(config: Config) -> None:
    """Raises `UserError` for what can't go together, before anything is read."""
    source, corpus, agents = config.source, config.corpus, config.agents
    if config.data.kind == "path":
        raise UserError(
            f"data.path={config.data.path}: recipe=corpus writes a corpus and reads none; name "
            "what it is made of by source=..."
        )
    if source.corrupt and source.kind != "world":
        raise UserError(
            f"source.corrupt={source.corrupt:g}: only of the rendered world it is known what is "
            "right; take source=world, or leave it out"
        )
    targets(config)
    apart(config)
    if agents.url and not agents.model:
        raise UserError(f"agents.model is empty: name the model that {agents.url} serves")
    if agents.url:
        return
    if source.kind == "folder":
        raise UserError(
            "source=folder: on videos without annotations there is nothing to say but what agents "
            "find; name an endpoint (agents.url=, agents.model=), or annotations (source=events)"
        )
    if corpus.verify == "agents":
        raise UserError(
            "corpus.verify=agents: agents.url is empty; name an endpoint, or leave it to rules and "
            "tools (corpus.verify=auto)"
        )


def families_of(config: Config) -> tuple[str, ...]:
    """The families whose stages work on the source."""
    if config.corpus.families:
        return tuple(name for name in FAMILIES if name in config.corpus.families)
    if config.source.kind == "folder":
        return FAMILIES
    return HELD.get(config.source.kind, ())


def left_out(config: Config) -> list[str]:
    """The stages that this run does without, for lack of agents."""
    if config.agents.url:
        return []
    names = [name for family in families_of(config) for name in NEED_AGENTS.get(family, ())]
    if config.corpus.verify != "off":
        names += ["local", "global"]
    # Memory text of rendered scenes comes from their own log.
    return names if config.source.kind == "world" else [*names, "summaries"]


# The source


def read(config: Config, room: Path | None = None) -> Iterator[Candidate | Refused]:
    """What the source yields: each of its items is a candidate, or refused with the reason. `room`
    is for files that are gone when it ends."""
    source, data = config.source, config.data
    given = (source.licence, source.language)
    match source.kind:
        case "world":
            check_assets(config)
            families = family_weights(data.families, data.mix)
            if not any(families.values()):
                raise UserError(
                    f"data.mix={data.mix}: every family that is used has the weight 0; raise one"
                )
            made = world.read(
                source.streams,
                config.seed,
                "train",
                families,
                data.kind,  # type: ignore[arg-type]
                frames_per_second=rate(config),
                backgrounds=FOOTAGE_MIX if data.footage else PLAIN_MIX,
            )
            if not source.corrupt:
                return made
            return corrupting(source.corrupt, seed=config.seed)[1](made)
        case "folder":
            return folder.read(videos(config), Path(data.cache_dir), *given)
        case "speech":
            files("asr")
            transcribe = _Transcribe(source.language)
            said = speech.read(videos(config), transcribe, source.language, source.licence)
            return cut_around(said, source.before, source.after)
    found = converted(config, videos(config).root, room)
    if source.kind in ASKED_AT_WILL:
        return cut_around(found, source.before, source.after)
    return cut_after(found, source.after) if source.kind == "video_qa" else found


def converted(
    config: Config, folder: Path | None, room: Path | None
) -> Iterator[Candidate | Refused]:
    """What annotations hold; with a folder of videos these are looked at."""
    source = config.source
    given = (source.licence, source.language)
    task: subtitles.Task = source.task  # type: ignore[assignment]
    due: subtitles.Due = source.due  # type: ignore[assignment]
    return convert.convert(source.kind, annotated(config), folder, *given, task, room, due)


def annotated(config: Config) -> Path:
    """The file, or for subtitles the folder, of annotations."""
    given = config.source.annotations
    if not given:
        raise UserError("source.annotations is empty: name the file, source.annotations=FILE")
    if not Path(given).exists():
        raise UserError(f"source.annotations={given}: is not there; mend the path")
    return Path(given)


def videos(config: Config) -> Videos:
    """The folder of videos."""
    given = config.source.videos
    if not given:
        raise UserError(
            "source.videos is empty: name the folder that the videos lie in, source.videos=DIR "
            "(annotations alone become timelines by command=convert)"
        )
    if not Path(given).is_dir():
        raise UserError(f"source.videos={given}: is no folder; mend the path")
    return Videos(Path(given))


class _Transcribe:
    """What is said in a video, by the ASR tool."""

    def __init__(self, language: str) -> None:
        self._asr = Asr(language=language.partition("-")[0])

    def __call__(self, path: Path) -> list[tuple[float, float, str]]:
        return [(said.start, said.stop, said.text) for said in self._asr(sound_of(path)).said]


def source_signature(config: Config) -> str:
    """Stands for what the source yields."""
    source, data = config.source, config.data
    told = asdict(source)
    if source.kind == "world":
        told |= {"families": data.families, "mix": data.mix, "pictures": data.kind}
        told |= {"footage": data.footage, "rate": data.frames_per_second, "seed": config.seed}
    elif source.annotations and (place := Path(source.annotations)).exists():
        found = subtitles.files(place) if place.is_dir() else [place]
        # By place too: that of a subtitle file says which video it belongs to.
        above = place if place.is_dir() else place.parent
        told["content"] = [
            (path.relative_to(above).as_posix(), file_hash(path))
            for path in found
            if path.is_file()
        ]
    elif source.kind in ("folder", "speech"):
        told["content"] = _names(videos(config))
    return json.dumps(told, sort_keys=True)


def _names(videos: Videos) -> str:
    """Stands for the videos that there are; `make_plan` sees to it that they stay as they are."""
    found = hashlib.blake2b(digest_size=16)
    for path in filter(is_video, videos.files()):
        found.update(os.fsencode(path.relative_to(videos.root)) + b"\0")
    return found.hexdigest()


# Pictures


def root(config: Config) -> Path:
    """The folder by which footage is named."""
    return Path(config.source.videos or ".").absolute()


def clip_frames(config: Config) -> ClipFrames:
    """What opens the pictures of clips, once in each process."""
    return ClipFrames(root(config), Path(config.data.cache_dir), whole_rate(config), size(config))


def whole_rate(config: Config) -> Rate:
    """Frames a second of what is kept."""
    if config.data.frames_per_second == "auto" and config.source.kind != "world":
        return "auto"
    return int(rate(config))


def size(config: Config) -> int:
    """The longest side of the pictures."""
    own = config.data.size if config.source.kind == "world" else LOCAL_SIZE
    return config.corpus.size or own


def picture_signature(config: Config) -> str:
    """Stands for how pictures are opened."""
    return json.dumps([whole_rate(config), size(config)])


# Agents and tools


def tool_names(config: Config) -> list[str]:
    """The tools of the run; `auto`: those that were fetched, for the world's exact labels none."""
    named = config.corpus.tools
    if "auto" not in named:
        return [name for name in TOOLS if name in named]
    if config.source.kind == "world":
        return [name for name in TOOLS if name in named]
    return [name for name in TOOLS if name in named or _fetched(name)]


def _fetched(tool: str) -> bool:
    packages = {"motion": (), "detector": ("cv2",), "ocr": ("cv2", "onnxruntime")}[tool]
    if any(importlib.util.find_spec(package) is None for package in packages):
        return False
    if tool == "motion":
        return True
    try:
        files(tool)
    except UserError:
        return False
    return True


def tools(names: list[str]) -> Tools:
    """The tools of these names. `UserError` with the mend where one was not fetched."""
    for name in names:
        if name != "motion":
            files(name)
    return Tools(
        motion=Motion() if "motion" in names else None,
        detects=Detector() if "detector" in names else None,
        reads=Ocr() if "ocr" in names else None,
    )


def agents_of(config: Config, spent: Mapping[str, float]) -> dict[str, Agent]:
    """All agents there are, on one endpoint; caps are of each worker, less what was `spent`."""
    agents = config.agents
    if not agents.url:
        return {}
    share = max(1, config.executor.workers)
    cost = max(0.0, agents.max_cost - spent.get("cost", 0.0)) / share
    tokens = max(0, agents.max_tokens - int(spent.get("tokens", 0))) // share
    client = client_of(
        agents,
        max_cost=cost if agents.max_cost else None,
        max_tokens=tokens if agents.max_tokens else None,
    )
    place = Path(agents.prompts) if agents.prompts else FOLDER
    seen: dict[str, Any] = {
        "most_pictures": agents.pictures,
        "picture_side": agents.picture_side,
        "most_failures": agents.failures,
    }
    made = {name: Agent(load(name, place), client, **seen) for name in PROMPTS}
    if agents.plain:
        made |= {name: PlainAgent(name, client, **seen) for name in PLAIN}
    return made


def stage_signature(config: Config) -> str:
    """Stands for what the stages do: their settings, what the agents are told and who they are."""
    corpus, agents, stream = config.corpus, config.agents, config.stream
    told: dict[str, Any] = {
        "seed": config.seed,
        "families": families_of(config),
        "tools": tool_names(config),
        "corpus": [
            corpus.verify,
            corpus.negatives,
            corpus.woven,
            corpus.problems,
            corpus.handed_over,
        ],
        "stream": asdict(stream),
        "pictures": picture_signature(config),
    }
    if agents.url:
        keys = sorted(agent.key for agent in agents_of(config, {}).values())
        told["agents"] = [agents.model, agents.pictures, agents.picture_side, agents.reparses, keys]
        told["agents"] += [agents.namespace] if agents.namespace else []
    return json.dumps(told, sort_keys=True)


# The rest


def for_workers(config: Config) -> Config:
    """`config` with what hangs on where this process runs settled: a worker on another machine has
    another working directory, and may have other tools."""
    source, agents = config.source, config.agents
    return replace(
        config,
        source=replace(source, videos=_absolute(source.videos)),
        data=replace(config.data, cache_dir=_absolute(config.data.cache_dir)),
        agents=replace(agents, cache=_absolute(agents.cache), prompts=_absolute(agents.prompts)),
        corpus=replace(config.corpus, tools=tool_names(config)),
    )


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else path


def targets(config: Config) -> Targets:
    """The shares that the corpus is to come to."""
    corpus = config.corpus
    return Targets(
        corpus.family_shares,
        corpus.language_shares,
        corpus.silence or None,
        corpus.tolerance,
        corpus.keep,
    )


def apart(config: Config) -> list[Apart]:
    """The benchmarks that the corpus is kept apart from."""
    return [open_apart(run, root(config)) for run in config.corpus.apart_from]


def executor_of(config: Config) -> Executor:
    """What works on the parts."""
    executor = config.executor
    match executor.kind:
        case "slurm":
            if not executor.partition:
                raise UserError("executor.partition is empty: name one of Slurm's partitions")
            return Slurm(
                executor.partition,
                executor.time,
                executor.workers,
                executor.cpus,
                executor.memory_gib,
                options=executor.options,
            )
        case "ray":
            return Ray(executor.workers, executor.cpus, executor.memory_gib, executor.address)
    return Local(executor.workers)
