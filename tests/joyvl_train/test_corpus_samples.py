"""Corpora as sources of samples, whatever their shape."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joyvl_train.collate import PackedRows, RowCollator
from joyvl_train.config import UserError
from joyvl_train.corpus import Corpus, open_corpus
from joyvl_train.corpus_samples import CorpusStreams, corpus_parts
from joyvl_train.memory import Limits, Summary
from joyvl_train.records import Rejects, StreamLabels, TurnSample
from joyvl_train.rendering import Renderer
from joyvl_train.samples import chunks_of
from joyvl_train.shards import ShardFrames, write_shards
from joyvl_train.timeline import Event, Timeline
from joyvl_train.video import FrameError
from joyvl_train.weights import LossWeights

from .conftest import picture
from .noise_clips import SHORT, Pictures, said, timeline


def shards(tmp_path: Path, records: list[Any]) -> Corpus:
    """A corpus of turn-based samples, and of clips with or without more labels than a timeline."""

    def record(given: Any) -> Any:
        bare = isinstance(given, tuple) and isinstance(given[0], Timeline)
        return (StreamLabels(given[0]), given[1]) if bare else given

    write_shards(map(record, records), tmp_path / "shards", per_shard=2)
    return open_corpus(tmp_path / "shards", rejects=Rejects(tmp_path / "rejects.jsonl"))


def parts_of(corpus: Corpus, renderer: Renderer, **more: Any) -> Any:
    return corpus_parts(corpus, renderer, LossWeights(), SHORT, **more)


def test_a_corpus_of_streams_and_questions(renderer: Renderer, tmp_path: Path) -> None:
    turn = TurnSample("t", "what?", "a dog", (picture(1), picture(2, (32, 32))), "memory text")
    records = [
        (timeline("long", 30, (said("a", 15.5),)), Pictures(30, missing=(4, 20))),
        turn,
        (timeline("wide", 5), Pictures(5, sizes=((64, 64),), rate=2)),
        (timeline("mixed", 6), Pictures(6, sizes=((64, 32), (32, 32)))),
    ]
    corpus = shards(tmp_path, records)
    parts = {p.name: p for p in parts_of(corpus, renderer, turn_share=0.25, system="Watch.")}
    assert {name: part.weight for name, part in parts.items()} == {
        "streams": 0.75,
        "questions": 0.25,
    }
    streams, questions = parts["streams"].source, parts["questions"].source
    assert (len(streams), len(questions)) == (5, 1) and not corpus.rejects.total
    for source in (streams, questions):
        for index in range(len(source)):
            assert source.length(index) == len(source.render(index)[0])
    rendered, targets = questions.render(0)
    assert rendered.turn_based and set(targets.weights.tolist()) == {1.0}
    assert "memory text" in renderer.tokenizer.decode(rendered.ids)
    seconds = {s.second for s in streams.render(0)[0].spans if s.kind == "end"}
    assert seconds == set(range(12)) - {4}
    rows = PackedRows(list(parts.values()), row_tokens=600, seed=0)
    batch = RowCollator(list(parts.values()))([next(iter(rows))])
    assert batch["input_ids"].numel() <= 600


def test_counting_lengths_decodes_no_stream(
    renderer: Renderer, tmp_path: Path, monkeypatch: Any
) -> None:
    corpus = shards(tmp_path, [(timeline("a", 30), Pictures(30)), (timeline("b", 9), Pictures(9))])

    def refuse(*_: Any) -> Any:
        raise AssertionError("decoded")

    with monkeypatch.context() as patch:
        patch.setattr("joyvl_train.shard_reader.decode", refuse)
        (part,) = parts_of(corpus, renderer)
    assert part.weight == 1.0
    assert [part.source.length(i) for i in range(4)] == [
        len(part.source.render(i)[0]) for i in range(4)
    ]


def test_a_chunk_is_rendered_without_a_look_at_the_others(
    renderer: Renderer, tmp_path: Path, monkeypatch: Any
) -> None:
    events = (said("a", 5.5), said("b", 25.5))
    records = [(timeline(f"c{n}", 40, events), Pictures(40, missing=(3, 20))) for n in range(6)]
    corpus = shards(tmp_path, records)
    (part,) = parts_of(corpus, renderer)
    expected = [
        chunk.memory_text
        for labels, frames in corpus  # type: ignore[misc]
        for chunk in chunks_of(labels.timeline, frames, SHORT)
    ]
    read: list[int] = []
    real = ShardFrames.frames

    def frames(self: ShardFrames, second: int) -> Any:
        read.append(second)
        return real(self, second)

    def refuse(*_: Any) -> Any:
        raise AssertionError("its size was asked for")

    monkeypatch.setattr(ShardFrames, "frames", frames)
    monkeypatch.setattr(ShardFrames, "sizes", refuse)
    assert len(part.source) == len(expected) == 24
    for index, memory in enumerate(expected):
        read.clear()
        rendered, _ = part.source.render(index)
        seconds = [s.second for s in rendered.spans if s.kind == "end"]
        assert read == seconds and not {3, 20} & set(seconds)
        assert memory in renderer.tokenizer.decode(rendered.ids)
        assert len(rendered) == part.source.length(index)


def test_stored_summaries_open_the_chunks(renderer: Renderer, tmp_path: Path) -> None:
    gold = timeline("long", 40, (said("a", 5.5), said("b", 13.2), said("c", 30.9)))
    told = (Summary(0, 9, "A man cooks."), Summary(9, 15, "He rests."), Summary(21, 33, "Smoke!"))
    corpus = shards(tmp_path, [(StreamLabels(gold, told), Pictures(40)), (gold, Pictures(40))])
    (part,) = parts_of(corpus, renderer)
    texts = [renderer.tokenizer.decode(part.source.render(n)[0].ids) for n in range(8)]
    # Summarized are [0, 9), [9, 21) and [21, 33); in the last three seconds nothing is said.
    for text, shows in zip(texts[:4], ((), told[:1], told[:2], told), strict=True):
        assert [s.text for s in told if s.text in text] == [s.text for s in shows]
    assert not any(s.text in text for text in texts[4:] for s in told)
    assert "5 s assistant: fire" in texts[5]
    for index in range(8):
        assert part.source.length(index) == len(part.source.render(index)[0])


def test_memory_keeps_the_newest_that_was_said(renderer: Renderer, tmp_path: Path) -> None:
    gold = timeline("long", 20, tuple(said(f"a{n}", n + 0.5, f"Fire {n}.") for n in range(9)))
    tight = replace(SHORT, limits=Limits(summary_chars=64))
    (part,) = corpus_parts(shards(tmp_path, [(gold, Pictures(20))]), renderer, LossWeights(), tight)
    text = renderer.tokenizer.decode(part.source.render(1)[0].ids)
    assert "0 to 9 s: …; 7 s assistant: Fire 7.; 8 s assistant: Fire 8." in text


def test_a_run_goes_on_with_its_own_data_alone(renderer: Renderer, tmp_path: Path) -> None:
    def parts(name: str, text: str) -> Any:
        (tmp_path / name).mkdir()
        record = (timeline("a", 5, (said("a", 2.5, text),)), Pictures(5))
        return parts_of(shards(tmp_path / name, [record]), renderer)

    state = next(iter(PackedRows(parts("one", "fire"), row_tokens=600, seed=0))).state
    PackedRows(parts("same", "fire"), row_tokens=600, seed=0, state=state)
    with pytest.raises(UserError, match="1 samples of 'streams', this run from 1 others"):
        PackedRows(parts("other", "smoke"), row_tokens=600, seed=0, state=state)


def test_published_json_with_pictures_on_disk(renderer: Renderer, tmp_path: Path) -> None:
    def item(names: list[str]) -> dict[str, Any]:
        chat = []
        for second in range(len(names)):
            text = "say fire\n<0.0 seconds>" if not second else f"<{second}.0 seconds>"
            chat.append({"role": "user", "content": f"{text}\n<image>"})
            said = "</response> fire" if second == 1 else "</silence>"
            chat.append({"role": "assistant", "content": said})
        return {"messages": chat, "images": names}

    (tmp_path / "a").mkdir()
    for second in range(3):
        picture(second).save(tmp_path / "a" / f"{second}.png")
    turned = picture(7)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    turned.save(tmp_path / "a" / "turned.jpg", exif=exif)
    names = [f"a/{second}.png" for second in range(3)]
    items = [item(names), item([*names, "a/turned.jpg"]), item([*names[:2], "a/none.png"])]
    (tmp_path / "data.json").write_text(json.dumps(items))
    corpus = open_corpus(tmp_path / "data.json")
    (part,) = parts_of(corpus, renderer)
    assert len(part.source) == 2 and corpus.rejects.total == 1
    for index in range(2):
        assert part.source.length(index) == len(part.source.render(index)[0])


def test_what_cannot_be_used_is_counted(renderer: Renderer, tmp_path: Path) -> None:
    unseen = (timeline("unseen", 9, (said("a", 3.5),)), Pictures(9, missing=(3,)))
    past = (timeline("past", 9, (Event("z", 8.5, "user", "hm"),)), Pictures(9, missing=(8,)))
    fine = (timeline("fine", 5), Pictures(5))
    long = (timeline("long", 14), Pictures(14, sizes=((64, 64),), rate=3))
    blank = TurnSample("blank", "<\u2028x", "\u200b ?", (picture(1),))
    corpus = shards(tmp_path, [unseen, past, fine, long, blank])
    parts = parts_of(corpus, renderer, most_tokens=300)
    assert dict(corpus.rejects.counts) == {
        "no frame at a response": 1,
        "text after the last frame": 1,
        "too long": 1,
    }
    streams = next(p.source for p in parts if p.name == "streams")
    # The second chunk of the long clip is short enough.
    assert len(streams) == 2 and max(streams.length(i) for i in range(2)) <= 300
    lines = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in lines] == [
        "shard-00000 record 0",
        "shard-00000 record 1",
        "shard-00001 record 1 chunk 0",
    ]


def test_a_corpus_with_nothing_to_train_on_is_one_line(renderer: Renderer, tmp_path: Path) -> None:
    unseen = (timeline("unseen", 9, (said("a", 3.5),)), Pictures(9, missing=(3,)))
    corpus = shards(tmp_path, [unseen])
    with pytest.raises(UserError, match="1 no frame at a response") as error:
        parts_of(corpus, renderer)
    assert "\n" not in str(error.value)


def test_a_picture_that_breaks_later_is_counted_and_passed_over(
    renderer: Renderer, tmp_path: Path, monkeypatch: Any
) -> None:
    corpus = shards(tmp_path, [(timeline("a", 5), Pictures(5)), (timeline("b", 5), Pictures(5))])
    parts = parts_of(corpus, renderer)
    source = parts[0].source
    assert isinstance(source, CorpusStreams)
    real = corpus.__class__.__getitem__

    def get(self: Any, number: int) -> Any:
        found, frames = real(self, number)
        if number == 0:
            frames.frames = lambda second: (_ for _ in ()).throw(FrameError("damaged", "it"))
        return found, frames

    monkeypatch.setattr(corpus.__class__, "__getitem__", get)
    with pytest.raises(FrameError):
        source.render(0)
    assert dict(corpus.rejects.counts) == {"damaged": 1}
    batch = RowCollator(parts)([next(iter(PackedRows(parts, row_tokens=600, seed=0)))])
    assert batch["sample_lengths"] in ([source.length(1)], [source.length(1)] * 2) or all(
        n == source.length(1) for n in batch["sample_lengths"]
    )
