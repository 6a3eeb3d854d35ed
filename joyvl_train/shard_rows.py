"""The columns of a corpus shard, and a record's labels as a row of them and back.

One row is one record. All columns but `images` are labels: they are read without a picture.

| column | of | what |
|---|---|---|
| id, kind | both | its name; `stream` or `turn` |
| family, source, language, licence, use | both | `use` is `train` or `evaluation` |
| footage | both | what it shows: records of one footage stay on one side of a split |
| clip, seconds, frames_per_second | stream | the clip's name, its length, the rate of its source |
| video, files, scene | stream | where the pictures came from; `scene` is JSON |
| offset | stream | the second of its footage at which the clip begins |
| opening, events, summaries | stream | memory text at the start; what happens; memory text later |
| question, answer, context | turn | |
| meta, history | both | JSON: further labels; what each stage of the pipeline did to it |
| image_index | stream | for each second the places in `images` of the pictures it shows |
| image_bytes, image_crc32 | both | length and checksum of each image |
| images | both | JPEG; equal ones that follow each other are stored once |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from joyvl_train.memory import Summary
from joyvl_train.records import RecordError, StreamLabels, TurnSample, footage
from joyvl_train.timeline import TimelineError, from_json, to_json

_TEXT = pa.string()
_RULE = pa.struct([("kind", _TEXT), ("facts", pa.list_(_TEXT))])
_EVENT = pa.struct(
    [
        ("id", _TEXT),
        ("time", pa.float64()),
        ("role", _TEXT),
        ("text", _TEXT),
        ("question", _TEXT),
        ("until", pa.float64()),
        ("repeat", pa.bool_()),
        ("answers", _TEXT),
        ("rule", _RULE),
        ("early", pa.int32()),
        ("late", pa.int32()),
    ]
)
_SUMMARY = pa.struct([("start", pa.int32()), ("stop", pa.int32()), ("text", _TEXT)])

LABELS = pa.schema(
    [
        ("id", _TEXT),
        ("kind", _TEXT),
        ("family", _TEXT),
        ("source", _TEXT),
        ("language", _TEXT),
        ("licence", _TEXT),
        ("use", _TEXT),
        ("footage", _TEXT),
        ("clip", _TEXT),
        ("seconds", pa.float64()),
        ("frames_per_second", pa.float64()),
        ("video", _TEXT),
        ("files", pa.list_(_TEXT)),
        ("scene", _TEXT),
        ("offset", pa.int32()),
        ("opening", _TEXT),
        ("events", pa.list_(_EVENT)),
        ("summaries", pa.list_(_SUMMARY)),
        ("question", _TEXT),
        ("answer", _TEXT),
        ("context", _TEXT),
        ("meta", _TEXT),
        ("history", _TEXT),
        ("image_index", pa.list_(pa.list_(pa.int32()))),
        ("image_bytes", pa.list_(pa.int32())),
        ("image_crc32", pa.list_(pa.uint32())),
    ]
)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", _TEXT)])
"""What `datasets` takes for a picture."""


def _feature(type_: pa.DataType) -> Any:
    """What `datasets` calls an Arrow type."""
    if type_ == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(type_):
        return {"feature": _feature(type_.value_type), "_type": "List"}
    if pa.types.is_struct(type_):
        return {field.name: _feature(field.type) for field in type_}
    name = "float64" if type_ == pa.float64() else str(type_)
    return {"dtype": name, "_type": "Value"}


def _schema() -> pa.Schema:
    """All columns; the pictures come last, so that a row group begins with all of its labels."""
    schema = LABELS.append(pa.field("images", pa.list_(IMAGE)))
    features = {field.name: _feature(field.type) for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


SCHEMA = _schema()


def leaves(fields: Sequence[pa.Field] | pa.Schema, above: str = "") -> Iterator[str]:
    """The names that Parquet gives to the columns of `fields`."""
    for field in fields:
        name, type_ = above + field.name, field.type
        while pa.types.is_list(type_):
            name, type_ = f"{name}.list.element", type_.value_type
        if pa.types.is_struct(type_):
            yield from leaves(list(type_), f"{name}.")
        else:
            yield name


def stream_row(labels: StreamLabels) -> dict[str, Any]:
    """The labels of a stream, but for those of its images."""
    plain = to_json(labels.timeline)
    clip = plain.pop("clip")
    return {
        "id": labels.id or clip["id"],
        "kind": "stream",
        **{key: getattr(labels, key) for key in ("language", "licence", "use")},
        "footage": labels.footage or footage(labels.timeline.clip, "/"),
        "clip": clip["id"],
        "seconds": clip["duration"],
        "video": clip["video"],
        "files": clip["images"],
        "scene": None if clip["scene"] is None else _json(clip["scene"]),
        "offset": clip.get("offset", 0),
        **plain,
        "summaries": [{"start": s.start, "stop": s.stop, "text": s.text} for s in labels.summaries],
        "meta": _json(plain["meta"]),
        "history": _json(labels.history),
    }


def turn_row(sample: TurnSample) -> dict[str, Any]:
    """The labels of a turn-based sample, but for those of its images."""
    same = ("id", "source", "language", "licence", "use", "question", "answer", "context")
    return {
        "kind": "turn",
        **{key: getattr(sample, key) for key in same},
        "footage": sample.footage or sample.id,
        "meta": _json(sample.meta),
        "history": _json(sample.history),
    }


def labels_of(row: Mapping[str, Any]) -> StreamLabels | TurnSample:
    """What a row says; a turn-based sample is without its images.

    `TimelineError` where it says nothing that can be used, `RecordError` "corrupt record" where it
    isn't a row of these columns.
    """
    try:
        if row["kind"] == "turn":
            return _sample(row)
        if row["kind"] == "stream":
            return _stream(row)
        raise TimelineError("shape", f"kind {row['kind']!r}")
    except TimelineError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RecordError("corrupt record", f"{type(error).__name__}: {error}") from None


def _common(row: Mapping[str, Any]) -> dict[str, Any]:
    same = ("id", "footage", "language", "licence", "use")
    return {**{key: row[key] for key in same}, "history": tuple(json.loads(row["history"]))}


def _sample(row: Mapping[str, Any]) -> TurnSample:
    same = ("question", "answer", "context", "source")
    told = {key: row[key] for key in same}
    return TurnSample(meta=json.loads(row["meta"]), **told, **_common(row))


def _stream(row: Mapping[str, Any]) -> StreamLabels:
    same = ("family", "source", "events", "frames_per_second", "opening")
    clip = {
        "id": row["clip"],
        "duration": row["seconds"],
        "video": row["video"],
        "images": row["files"],
        "scene": None if row["scene"] is None else json.loads(row["scene"]),
        "offset": row.get("offset") or 0,  # shards that were written before hold none
    }
    told = {key: row[key] for key in same}
    timeline = from_json({"clip": clip, **told, "meta": json.loads(row["meta"])})
    summaries = tuple(Summary(**summary) for summary in row["summaries"])
    return StreamLabels(timeline, summaries, **_common(row))


def _json(data: Any) -> str:
    """Plain data as text; equal data gives equal text."""
    return json.dumps(data, ensure_ascii=False, sort_keys=True)
