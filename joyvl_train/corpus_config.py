"""The keys of recipe=corpus: what it reads, what it makes of it, whom it asks and where it runs."""

from __future__ import annotations

from dataclasses import dataclass

from joyvl_train.config_key import key as _key

SOURCES = (
    "world folder events charades_sta activitynet qvhighlights ovo_bench streamingbench_proactive "
    "joyai streamo video_qa speech subtitles"
).split()
FAMILIES = ("alerting", "qa", "counting", "commentary", "chat", "delegation")
TOOLS = ("motion", "detector", "ocr")


@dataclass
class SourceConfig:
    kind: str = _key(
        "world",
        "what is read: the rendered world, a folder of videos, annotations of a known form, "
        "speech in videos, subtitles",
        choices=SOURCES,
    )
    annotations: str = _key("", "file of annotations, or file or folder of subtitles")
    videos: str = _key("", "folder that the names of videos in the annotations start from")
    licence: str = _key("", "licence of the footage, for the card; the world knows its own")
    language: str = _key("en", "language of the texts, where the annotations don't tell")
    streams: int = _key(4000, "streams drawn from the world", low=1, high=10**9)
    corrupt: float = _key(
        0.0,
        "share of the world's streams that are damaged on purpose before anybody looks, to "
        "measure what verification is worth; 0: none",
        low=0,
        high=1,
    )
    task: str = _key(
        "read", "what is asked for, of subtitles", choices=("read", "comment", "translate")
    )
    due: str = _key(
        "start",
        "when a subtitle is due: start: as it appears; end: when its words have been heard",
        choices=("start", "end"),
    )
    before: int = _key(
        60,
        "seconds of a video that are kept before the first thing annotated: at most so many, a "
        "drawn count from half of it on",
        low=5,
        high=86_400,
    )
    after: int = _key(
        30, "seconds of a video that are kept after the last thing annotated", low=1, high=86_400
    )


@dataclass
class CorpusConfig:
    families: list[str] = _key(
        [],
        "families whose stages work on the source; empty: all six for a folder of videos, for "
        "annotations those that they hold, for the world and benchmarks none",
        choices=FAMILIES,
    )
    verify: str = _key(
        "auto",
        "auto: by agents where agents.url names some, else by rules and tools; agents: must be "
        "there; off: nobody looks, which the card says",
        choices=("auto", "agents", "off"),
    )
    tools: list[str] = _key(
        ["auto"],
        "tools that look before a model is asked; auto: those that were fetched, of the world none",
        choices=("auto", *TOOLS),
    )
    negatives: float = _key(
        0.25, "share of alerts of which one is made in which nothing is due", low=0, high=1
    )
    woven: float = _key(
        0.1, "share of ready clips copied with a condition of time (counting)", low=0, high=1
    )
    problems: float = _key(
        0.1, "share of ready clips copied with hard problems in text (delegation)", low=0, high=1
    )
    handed_over: float = _key(
        0.1, "share of clips with questions copied with one handed over", low=0, high=1
    )
    near_text: float = _key(
        0.9, "how like two texts on the same seconds may be before one goes", low=0.5, high=1
    )
    apart_from: list[str] = _key(
        [], "finished runs of recipe=corpus with benchmarks, whose footage is never trained on"
    )
    family_shares: dict[str, float] = _key(
        {}, "share of clips that a family is to have; none named: as they come", low=0, high=1
    )
    language_shares: dict[str, float] = _key(
        {}, "share of clips that a language is to have; none named: as they come", low=0, high=1
    )
    silence: float = _key(
        0.0, "share of seconds that are to be silent; 0: as they come", low=0, high=1
    )
    tolerance: float = _key(0.02, "how far a share may be off", low=0.001, high=0.5)
    keep: float = _key(0.5, "share of clips that stays, whatever the shares cost", low=0, high=1)
    size: int = _key(
        0,
        "longest side of the pictures; 0: data.size for the world, else 384",
        low=0,
        high=2048,
    )
    quality: int = _key(90, "JPEG quality of pictures that are drawn", low=1, high=100)
    per_part: int = _key(500, "clips of a part, the unit of work", low=1, high=10**6)
    form: str = _key(
        "raw",
        "published form that command=export writes: raw records, or converted chats with pictures",
        choices=("raw", "converted"),
    )
    shown: int = _key(40, "clips drawn second by second in the report", low=0, high=1000)


@dataclass
class AgentsConfig:
    url: str = _key("", "OpenAI-compatible endpoint, such as http://host:8000/v1; empty: no agents")
    model: str = _key("", "name of the model at agents.url")
    key_variable: str = _key("OPENAI_API_KEY", "environment variable that holds the key")
    prompts: str = _key("", "folder of prompts of one's own; empty: those that come along")
    plain: bool = _key(
        False, "verifiers put plain yes-or-no questions, for small models that write no JSON"
    )
    cache: str = _key(".cache/answers", "folder of the answers: a question is paid for once")
    namespace: str = _key(
        "",
        "keeps answers apart in agents.cache that are of one model name and are not of one model, "
        "such as two versions of it; empty: a model is known by its name, wherever it is served",
    )
    prompt_price: float = _key(0.0, "price of a million prompt tokens", low=0, high=10**6)
    completion_price: float = _key(0.0, "price of a million answered tokens", low=0, high=10**6)
    max_cost: float = _key(
        0.0,
        "most that the whole run may spend, in the unit of the prices; 0: no cap",
        low=0,
        high=10**9,
    )
    max_tokens: int = _key(
        0, "most tokens that the whole run may use; 0: no cap", low=0, high=10**15
    )
    concurrency: int = _key(8, "requests in flight, of each worker", low=1, high=4096)
    per_minute: float = _key(
        0.0, "requests started in a minute, of each worker; 0: no limit", low=0, high=10**6
    )
    timeout: float = _key(120.0, "seconds for one try", low=0.1, high=86_400)
    retries: int = _key(5, "further tries after an error", low=0, high=100)
    reparses: int = _key(2, "further questions after an answer of another form", low=0, high=100)
    window: int = _key(32, "clips asked about at a time, of each worker", low=1, high=4096)
    pictures: int = _key(64, "most pictures that an agent is shown at a time", low=1, high=4096)
    picture_side: int = _key(512, "longest side of a picture shown", low=28, high=4096)
    failures: int = _key(
        16, "questions on end without an answer after which the run ends", low=1, high=10**6
    )


@dataclass
class ExecutorConfig:
    kind: str = _key("local", "what works on the parts", choices=("local", "slurm", "ray"))
    workers: int = _key(1, "parts that are worked on at a time", low=1, high=100_000)
    cpus: int = _key(1, "CPUs of a worker on a cluster", low=1, high=1024)
    memory_gib: int = _key(4, "memory of a worker on a cluster, in GiB", low=1, high=10_000)
    partition: str = _key("", "partition of Slurm; needed there")
    time: str = _key("24:00:00", "time limit of a Slurm job, as sbatch takes it")
    options: dict[str, str] = _key({}, "more options of sbatch, such as account")
    address: str = _key("", "address of a Ray cluster; empty: Ray on this machine")
