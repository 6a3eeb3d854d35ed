"""Every key of a run: its type, its default, its bounds and a one-line meaning.

Hydra composes `configs/` into these dataclasses; `check` then holds each value against its bounds.
Needs nothing but the standard library. Code below the command line receives these objects, or
plain values out of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from joyvl_train.config_key import key as _key
from joyvl_train.corpus_config import AgentsConfig, CorpusConfig, ExecutorConfig, SourceConfig
from joyvl_train.eval_config import CasesConfig
from joyvl_train.rl_config import GrpoConfig, RewardConfig, WindowsConfig
from joyvl_train.serve_config import ServeConfig, SpeechConfig
from joyvl_train.stream_config import LEAST_CHARS, CodecConfig, StreamConfig

_HANDED_ON = re.compile(r"Original Traceback .*\n[\w.]*Error: (.*)\Z", re.S)


MAX_WEIGHT = 1000.0
"""The most that a token may weigh in the loss."""


class UserError(ValueError):
    """What a user got wrong, in one line that names the value, the place and the mend."""

    def __init__(self, message: str) -> None:
        # A loader's worker process hands its error on as the text of a whole traceback.
        handed_on = _HANDED_ON.search(message)
        super().__init__(" ".join((handed_on[1] if handed_on else message).split()))


@dataclass
class RunConfig:
    dir: str = _key("", "folder of this run; empty: <root>/<recipe>/<date-time>")
    root: str = _key("outputs", "folder of the default run folders and of latest/<recipe>")
    wandb: str = _key("off", "also log to wandb", choices=("off", "offline", "online"))
    threads: int = _key(0, "CPU threads; 0: OMP_NUM_THREADS, else all cores", low=0, high=1024)


@dataclass
class LoraConfig:
    rank: int = _key(0, "rank of the LoRA matrices; 0: all weights are trained", low=0, high=1024)
    alpha: float = _key(32.0, "LoRA scale is alpha / rank", low=0, high=10_000)
    dropout: float = _key(0.0, "dropout on the LoRA path", low=0, high=0.95)
    targets: list[str] = _key(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "names of the linear layers that get LoRA matrices",
    )


@dataclass
class ModelConfig:
    name: str = _key("tiny", "name of the model, for folders and tables")
    path: str = _key("", "folder in Hugging Face layout, or hub id; empty: by the recipe")
    kept: str = _key("", "base checkpoint kept in the repository, relative to its root")
    dtype: str = _key(
        "auto",
        "type of the loaded weights; on a CPU, and of weights that are trained, float32",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    control_tokens: str = _key(
        "add",
        "add: the control strings become single tokens; keep: the tokenizer stays as it is",
        choices=("add", "keep"),
    )
    freeze: list[str] = _key(
        [], "parts that are not trained", choices=("vision", "projector", "text")
    )
    lora: LoraConfig = field(default_factory=LoraConfig)
    min_pixels: int = _key(0, "smallest frame in pixels; 0: the processor's", low=0, high=2**26)
    max_pixels: int = _key(0, "largest frame in pixels; 0: the processor's", low=0, high=2**26)
    gradient_checkpointing: bool = _key(False, "compute activations twice to save memory")


@dataclass
class DataConfig:
    kind: str = _key(
        "drawn",
        "drawn, photo, both: streams of the world; path: timelines on disk",
        choices=("drawn", "photo", "both", "path"),
    )
    path: str = _key("", "corpus shards, or JSON of the published form; needs data.kind=path")
    image_root: str = _key("", "folder that image and video paths in data.path start from")
    seed: int = _key(0, "seed of the held-out streams alone", low=0, high=2**32 - 1)
    frames_per_second: int | float | str = _key(
        1.0,
        "frames of a second; auto: 4 below 64 s, 2 below 160 s, else 1",
        low=0.1,
        high=30,
        choices=("auto",),
    )
    size: int = _key(
        96, "side of the world's square frames, longest side of data.path's", low=28, high=2048
    )
    footage: bool = _key(False, "real footage among the world's backgrounds; fetched before")
    families: list[str] = _key([], "families of the world that are used; empty: all")
    train_streams: int = _key(100_000, "training streams drawn from the world", low=0, high=10**8)
    validation_streams: int = _key(
        60,
        "streams scored during training, of data.path from the quarter of data.held_out; of "
        "recipe=base questions, and 40 times as many at the end",
        low=0,
        high=10**6,
    )
    test_streams: int = _key(
        0,
        "held-out streams scored at the end; 0: as test_hours says, of data.path all but the "
        "quarter for validation",
        low=0,
        high=10**6,
    )
    test_hours: float = _key(
        5.0, "hours of the world's held-out streams scored at the end", low=0.001, high=10_000
    )
    turn_share: float = _key(
        0.25,
        "share of turn-based samples among all; data.path of one kind alone gives that kind",
        low=0,
        high=1,
    )
    cut_share: float = _key(
        0.15, "share of the world's clips cut early, to teach openings with memory", low=0, high=1
    )
    late_share: float = _key(
        0.0,
        "share of the world's clips that begin minutes or hours into their stream, with memory of "
        "what was before",
        low=0,
        high=1,
    )
    shortest: int = _key(
        12, "seconds of the shortest of the world's training streams", low=8, high=600
    )
    longest: int = _key(
        32, "seconds of the longest of the world's training streams", low=12, high=600
    )
    mix: dict[str, float] = _key(
        {}, "weight of each family in the mix; a family not named weighs 1", low=0, high=10**6
    )
    hard: float = _key(
        1.0,
        "factor on the weight of the world's families that are learnt last (alerting, counting)",
        low=0,
        high=1000,
    )
    codec: str = _key(
        "off",
        "predictive: frames that say little that is new are shown by a small picture of what has "
        "changed (codec); off: every frame is shown whole",
        choices=("off", "predictive"),
    )
    cache_dir: str = _key(".cache/frames", "folder of the decoded frames")
    workers: int = _key(0, "processes that prepare samples; 0: in the run itself", low=0, high=256)
    held_out: float = _key(
        0.1,
        "share of data.path's footage kept out of training: a quarter of it is validated on, the "
        "rest scored at the end",
        low=0,
        high=0.9,
    )


@dataclass
class LossConfig:
    silence_first: float = _key(1.0, "weight of the first silence of a run", low=0, high=MAX_WEIGHT)
    silence_repeat: float = _key(0.4, "weight of a repeated silence", low=0, high=MAX_WEIGHT)
    response: float = _key(1.5, "weight of the response token", low=0, high=MAX_WEIGHT)
    other: float = _key(1.0, "weight of every other supervised token", low=0, high=MAX_WEIGHT)
    normalizer: str = _key(
        "tokens",
        "the loss is divided by the count of supervised tokens, or by the sum of weights",
        choices=("tokens", "weights"),
    )
    silence_run: str = _key(
        "run",
        "first silence is that of any run, or only the one after a response",
        choices=("run", "after_response"),
    )


@dataclass
class TrainConfig:
    steps: int = _key(3000, "optimizer steps", low=0, high=10**8)
    tower_steps: int = _key(
        0, "steps of dense supervision of the vision tower first (recipe=base)", low=0, high=10**7
    )
    marks: float = _key(
        0.0,
        "share of the loss of marks, which frames show what is asked for (the rendered world)",
        low=0,
        high=100,
    )
    minutes: float = _key(
        0.0,
        "stop training after this long, the schedule run through; 0: no limit",
        low=0,
        high=10**6,
    )
    learning_rate: float = _key(1e-3, "peak learning rate", low=0, high=1)
    vision_learning_rate: float = _key(0.0, "of the vision tower; 0: the same", low=0, high=1)
    projector_learning_rate: float = _key(0.0, "of the projector; 0: the same", low=0, high=1)
    schedule: str = _key(
        "cosine", "learning rate after the warm-up", choices=("constant", "linear", "cosine")
    )
    warmup: int = _key(50, "steps of linear warm-up", low=0, high=10**7)
    weight_decay: float = _key(0.01, "AdamW weight decay", low=0, high=10)
    betas: list[float] = _key([0.9, 0.95], "AdamW betas", low=0, high=0.99999)
    max_grad_norm: float = _key(
        1.0, "gradients are clipped to this norm; 0: not at all", low=0, high=10**6
    )
    precision: str = _key(
        "auto",
        "of the arithmetic; auto: bf16 where the device has it",
        choices=("auto", "bf16", "fp32"),
    )
    pack: bool = _key(True, "several samples share a row, kept apart")
    row_tokens: int = _key(4096, "tokens of a row; a longer sample is refused", low=64, high=10**7)
    rows_per_step: int = _key(1, "rows of a batch on each device", low=1, high=4096)
    accumulation: int = _key(1, "batches whose gradients make one step", low=1, high=10**5)
    save_every: int = _key(200, "steps between resumable states; 0: none", low=0, high=10**8)
    eval_every: int = _key(
        0, "steps between validations, the last step among them; 0: none", low=0, high=10**8
    )
    vision_cache: str = _key(
        "", "folder of a frozen tower's features; empty: in the run's, until training ends"
    )
    vision_cache_gib: float = _key(
        8.0, "disk space of these features, in GiB; 0: in memory only", low=0, high=10**6
    )
    log_every: int = _key(10, "steps between lines of log.jsonl", low=1, high=10**6)


@dataclass
class EngineConfig:
    kind: str = _key("single", "how training is spread", choices=("single", "ddp", "deepspeed"))
    processes: int = _key(1, "processes started on this machine, one a device", low=1, high=1024)
    deepspeed: dict[str, Any] = _key({}, "DeepSpeed's own config, passed on as it is")


@dataclass
class PromptConfig:
    system: str = _key("", "system text of every stream; empty: none")


@dataclass
class EvalConfig:
    batch: int = _key(32, "streams advanced in step", low=1, high=4096)
    max_new_tokens: int = _key(48, "token limit of one second", low=1, high=4096)
    temperature: float = _key(0.0, "sampling temperature; 0: greedy", low=0, high=10)
    silence_bias: float = _key(
        0.0, "added to the logit of silence; above 0 speaks less", low=-20, high=20
    )
    silence_biases: list[float] = _key(
        [],
        "values of silence_bias of which the best on validation streams is taken; empty: none is "
        "looked for",
        low=-20,
        high=20,
    )
    most_false_alarms: float = _key(
        0.0,
        "false alarms an hour that the chosen one of silence_biases keeps to, where that costs at "
        "most 0.05 of onset F1; 0: no bound",
        low=0,
        high=10**6,
    )
    bias_streams: int = _key(
        120, "validation streams on which one of silence_biases is chosen", low=1, high=10**6
    )
    bootstrap: int = _key(1000, "bootstrap samples of an interval", low=1, high=10**6)
    poll_seconds: int = _key(5, "period of the polling policy", low=1, high=3600)
    early: int = _key(0, "default seconds by which a response may come early", low=0, high=60)
    late: int = _key(1, "default seconds by which a response may come late", low=0, high=60)
    strips: int = _key(12, "clips drawn second by second in the report", low=0, high=1000)


@dataclass
class Config:
    """One run. Keys are written as on the command line: `train.learning_rate=3e-4`."""

    recipe: str = _key("", "name of the recipe")
    command: str = _key("run", "what the recipe does; `run` is its main job")
    checkpoint: str = _key("", "checkpoint or run folder to start from; empty: by the recipe")
    seed: int = _key(0, "seed of training, or of a corpus", low=0, high=2**32 - 1)
    id: str = _key("", "id of a record, for recipe=corpus command=inspect")
    video: str = _key("", "file of a video, for recipe=corpus command=codec")
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    agents: AgentsConfig = field(default_factory=AgentsConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    cases: CasesConfig = field(default_factory=CasesConfig)
    windows: WindowsConfig = field(default_factory=WindowsConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    speech: SpeechConfig = field(default_factory=SpeechConfig)


@dataclass(frozen=True)
class Key:
    """What is known of one key, for messages and for help."""

    name: str
    hint: Any
    default: Any
    meaning: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]

    @property
    def open(self) -> bool:
        """Whether any key may stand below this one."""
        return typing.get_origin(self.hint) is dict

    @property
    def takes(self) -> str:
        """What the key takes, in words: `int, 0 to 60`."""
        if not self.choices and self.low is None:
            return _type_name(self.hint)
        words = [" or ".join(self.choices)] if self.choices else []
        if self.low is not None and self.high is not None:
            number = "int" if _is_integer(self.hint) else "number"
            words.append(f"{number}, {self.low} to {self.high}")
        some = {list: "list of ", dict: "dict of "}.get(typing.get_origin(self.hint), "")
        return some + " or ".join(words)


def keys(kind: type[Any] = Config, prefix: str = "") -> Iterator[Key]:
    """Every key of `kind`, in order, with its dotted name."""
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        name = prefix + item.name
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            yield from keys(hint, name + ".")
            continue
        if item.default is not dataclasses.MISSING:
            default = item.default
        else:
            assert item.default_factory is not dataclasses.MISSING
            default = item.default_factory()
        known = item.metadata
        yield Key(
            name, hint, default, known["meaning"], known["low"], known["high"], known["choices"]
        )


def flat(config: Config) -> dict[str, Any]:
    """The config as {dotted key: value}; lists and dicts are values."""
    return {key.name: _value(config, key.name) for key in keys()}


def check(config: Config) -> None:
    """Raises `UserError` for the first value that is out of its bounds or fits no other."""
    for key in keys():
        for value in _items(_value(config, key.name)):
            _check_value(key, value)
    _check_together(config)


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean a or b?` for the known words most like `word`, or nothing."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    # A key is often right but for the group in front of it.
    last = word.rpartition(".")[2]
    close += [name for name in names if name.rpartition(".")[2] == last and name not in close]
    return f" Did you mean {' or '.join(close[:3])}?" if close else ""


def _check_value(key: Key, value: Any) -> None:
    fits = True
    if isinstance(value, str):
        fits = not key.choices or value in key.choices
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low = -math.inf if key.low is None else key.low
        high = math.inf if key.high is None else key.high
        fits = math.isfinite(value) and low <= value <= high
    if not fits:
        raise UserError(f"{key.name}={value}: takes {key.takes} ({key.meaning})")


def check_windows(config: Config) -> None:
    """Raises `UserError` where a window of GRPO is longer than a chunk can hold."""
    stream, windows = config.stream, config.windows
    longest = max(windows.before + windows.after + 1, windows.silence, windows.pending)
    if longest + 2 * stream.lead > stream.chunk:
        raise UserError(
            f"windows: the longest has {longest} s, which a chunk of stream.chunk_seconds="
            f"{stream.chunk} with twice stream.lead={stream.lead} can't hold; make windows "
            "shorter, or chunks longer"
        )


def _check_together(config: Config) -> None:
    data, model, stream, train = config.data, config.model, config.stream, config.train
    if data.kind == "path" and not data.path:
        raise UserError("data.path is empty: name the shards or JSON file, data.path=FILE")
    if data.shortest > data.longest:
        raise UserError(
            f"data.shortest={data.shortest}: is above data.longest={data.longest}; raise that"
        )
    if data.path and data.kind != "path":
        raise UserError(f"data.path={data.path}: is read with data=path only; add data=path")
    if model.max_pixels and model.min_pixels > model.max_pixels:
        raise UserError(
            f"model.min_pixels={model.min_pixels}: is above model.max_pixels={model.max_pixels}; "
            "lower it"
        )
    # Where no length is given a checkpoint may bring one; what is too long for it is told then.
    brought = not stream.chunk_seconds and config.recipe in ("grpo", "eval", "serve")
    if stream.lead >= stream.chunk and not brought:
        raise UserError(
            f"stream.lead={stream.lead}: a chunk opens with so many seconds of the last one, which "
            f"must be below stream.chunk_seconds={stream.chunk}, its whole length; lower "
            "the lead, or make chunks longer"
        )
    if 0 < stream.summary_chars < LEAST_CHARS:
        raise UserError(
            f"stream.summary_chars={stream.summary_chars}: takes {LEAST_CHARS} or more, or 0 for "
            "as many as are used without it"
        )
    if config.recipe == "grpo" and not brought:
        check_windows(config)
    if len(train.betas) != 2:
        raise UserError(f"train.betas={train.betas}: takes two numbers, such as [0.9,0.95]")
    if set(model.freeze) == {"vision", "projector", "text"} and not model.lora.rank:
        raise UserError(
            "model.freeze=[vision,projector,text]: nothing is left to train; "
            "free a part or set model.lora.rank"
        )
    if config.engine.processes > 1 and config.engine.kind == "single":
        raise UserError(
            f"engine.processes={config.engine.processes}: engine=single is one process; "
            "use engine=ddp, zero2 or zero3"
        )
    loss = config.loss
    if not any((loss.silence_first, loss.silence_repeat, loss.response, loss.other)):
        raise UserError("loss: every weight is 0, so that nothing is learnt; raise one of them")
    for family in data.mix:
        if data.families and family not in data.families:
            raise UserError(
                f"data.mix.{family}: is not among data.families={data.families}; add it there"
            )


def _value(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping):
        return value.values()
    return (value,)


def _is_integer(hint: Any) -> bool:
    return hint is int or typing.get_args(hint) == (int,)


def _type_name(hint: Any) -> str:
    names = {str: "text", int: "int", float: "number", bool: "true or false", Any: "anything"}
    if hint in names:
        return names[hint]
    arguments = [_type_name(part) for part in typing.get_args(hint)]
    if isinstance(hint, types.UnionType):
        return " or ".join(arguments)
    return f"{typing.get_origin(hint).__name__} of {arguments[-1]}"
