"""The page of a corpus, read as a browser reads it: its counts are those of the records, clips are
found by their reason, and nothing that a record says becomes part of the page."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from data_pipeline.admit import Admission
from data_pipeline.balance import Targets
from data_pipeline.candidates import Candidate, Refused
from data_pipeline.card import Checks
from data_pipeline.corpus_report import converted, report
from data_pipeline.parts import Local, run_parts
from data_pipeline.plan import make_plan
from data_pipeline.settle import settle
from data_pipeline.work import StageWork, Workshop
from data_pipeline.write import finish, writing
from joyvl_train.shards import read_shards
from joyvl_train.timeline import Event
from tests.data_pipeline.made_corpus import candidate, frames, judge, source

EVIL = "</option></article><script>alert('x')</script><img src=x onerror=y> & \"q\""
VOID = {"meta", "img", "br", "path", "circle", "use", "line", "rect", "polyline"}


@dataclass
class Article:
    """A clip that is drawn: under which kind it is found, and all words on it."""

    kind: str
    words: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """What stands on a page: tables by their section, clips, options, tags."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.articles: list[Article] = []
        self.options: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.handlers: list[str] = []
        self._section = ""
        self.feed(self.text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        self.tags[tag] += 1
        self.handlers += [name for name in known if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = known["id"] or ""
        elif tag == "table":
            self.tables.setdefault(self._section, []).append([])
        elif tag == "tr":
            self.tables[self._section][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self._section][-1][-1].append("")
        elif tag == "article":
            self.articles.append(Article(known["data-kind"] or ""))
        elif tag == "option":
            self.options.append((known["value"] or "", ""))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "script" in self.open or "style" in self.open:
            return
        self.words.append(data)
        if "option" in self.open:
            self.options[-1] = (self.options[-1][0], self.options[-1][1] + data)
        if "article" in self.open:
            self.articles[-1].words.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[self._section][-1][-1][-1] += data

    def rows(self, section: str, head: str) -> list[list[str]]:
        """The rows of the table in a section whose first column is called `head`."""
        found = [table for table in self.tables[section] if table[0][0] == head]
        assert len(found) == 1, f"{len(found)} tables of {head!r} in {section!r}"
        return found[0][1:]


def made(
    folder: Path, items: list[Candidate | Refused], targets: Targets | None = None
) -> Admission:
    """A corpus of these items; some are rejected and some left unverified, by their ids."""
    plan = make_plan(items, folder / "plan", 20, "made")
    work = StageWork(plan, folder / "work", lambda: Workshop((named, judge), frames), "judge")
    run_parts(plan.sizes, work, Local(), folder / "work", progress=False)
    done = settle(work, folder / "chosen", targets or Targets())
    admission = writing(done, folder / "corpus", folder / "rejects", lambda: frames, "s")
    run_parts(plan.sizes, admission, Local(), folder / "rejects", progress=False)
    finish(admission)
    return admission


def named(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    """Those that bring a reason are rejected with it."""
    for each in candidates:
        reason = each.work.get("reason")
        known = reason and each.status == "open"
        yield each.rejected("named", reason, EVIL, f"{EVIL}@1") if known else each


def page_of(folder: Path, admission: Admission, shown: int = 40, spent=None) -> Page:
    path = folder / "report.html"
    targets = admission.settled.index["targets"]
    report(path, admission, admission.funnel(), Checks(), spent or {}, targets, frames, shown)
    return Page(path)


def ends(admission: Admission) -> Counter[str]:
    """How the candidates that weren't admitted ended, counted from the records themselves."""
    parts = range(len(admission.settled.work.plan.parts))
    notes = [each.history[-1] for part in parts for each in admission.rejected(part)]
    return Counter(f"{note.verdict}: {note.stage}: {note.reason}" for note in notes)


def admitted(folder: Path) -> Counter[str]:
    """The families in the shards, counted from the records themselves."""
    return Counter(r[0].timeline.family for r in read_shards(folder / "corpus"))  # type: ignore[union-attr, index]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Admission]:
    folder = tmp_path_factory.mktemp("corpus")
    return folder, made(folder, list(source(200)), Targets(languages={"en": 0.3}))


def test_the_counts_on_the_page_are_those_of_the_records(corpus: tuple[Path, Admission]) -> None:
    folder, admission = corpus
    page, left, inside = page_of(folder, admission), ends(admission), admitted(folder)
    refused = [json.loads(x) for x in (folder / "plan/refused.jsonl").read_text().splitlines()]
    reasons = {
        f"{verdict}: {stage}: {reason}": int(count)
        for reason, stage, verdict, count in page.rows("funnel", "reason")
    }
    gone = Counter(f"refused: plan: {line['reason']}" for line in refused)
    assert reasons == dict(left + gone) and len(left) >= 3 and len(gone) >= 2
    families = {row[0]: int(row[1]) for row in page.rows("what-was-admitted", "family")}
    assert families == dict(inside)
    stages = {row[0]: [int(n) for n in row[1:6]] for row in page.rows("funnel", "stage")}
    _, kept, changed, rejected, unverified = stages["judge"]
    assert rejected == left["rejected: judge: not seen"] > 0
    assert unverified == left["unverified: judge: no answer"] > 0
    assert stages["judge"][0] == kept + changed + rejected + unverified
    said = " ".join(page.words)
    for count, words in ((200, "Items read"), (sum(inside.values()), "Clips admitted")):
        assert re.search(rf"{words}\s+{count}\b|{count}\s+{words}", said), words


def test_clips_are_found_by_what_became_of_them(corpus: tuple[Path, Admission]) -> None:
    folder, admission = corpus
    page, left, inside = page_of(folder, admission, 30), ends(admission), admitted(folder)
    kinds = Counter(article.kind for article in page.articles)
    assert sum(kinds.values()) == 30
    assert set(kinds) == {*left, *(f"admitted: {family}" for family in inside)}
    every = left + Counter({f"admitted: {family}": n for family, n in inside.items()})
    assert all(count <= every[kind] for kind, count in kinds.items())
    # The choice offers each kind that is drawn, with how many there are, and all of them.
    assert page.options[0] == ("", "all")
    offered = dict(page.options[1:])
    assert offered == {kind: f"{kind} ({count})" for kind, count in kinds.items()}
    assert "each.dataset.kind !== pick.value" in page.text
    assert page.tags["select"] == page.tags["script"] == 1
    # Each clip is drawn under what its own history ends with.
    parts = range(len(admission.settled.work.plan.parts))
    rejected = {each.id: each for part in parts for each in admission.rejected(part)}
    for article in page.articles:
        ids = [word for word in article.words if re.fullmatch(r"[0-9a-f]{32}b?", word)]
        assert len(ids) == 1
        if article.kind.startswith("admitted: "):
            assert ids[0] not in rejected
        else:
            note = rejected[ids[0]].history[-1]
            assert article.kind == f"{note.verdict}: {note.stage}: {note.reason}"


def test_fewer_clips_than_there_is_room_for_are_all_drawn(tmp_path: Path) -> None:
    items = [candidate(n, video=f"videos/{n}.mp4") for n in range(5)]
    admission = made(tmp_path, list(items))
    page = page_of(tmp_path, admission, 40)
    assert len(page.articles) == 5
    assert not page_of(tmp_path, admission, 0).articles


def test_nothing_that_a_record_says_becomes_part_of_the_page(tmp_path: Path) -> None:
    """Every text that comes from outside: in a record, a reason, a name, an item."""
    assert len(EVIL) <= 80  # longer names are counted together
    plain = candidate(1, question="Is it there?", video="videos/1.mp4")
    told = candidate(2, question=EVIL, answer=f"{EVIL} 2", video="videos/2.mp4", language=EVIL)
    told = replace(told, licence=EVIL).changed(EVIL, detail=EVIL, agent=EVIL)
    handed = Event("h", 9.0, "assistant", EVIL, question=EVIL, answers="q")
    timeline = replace(
        told.timeline,
        family=EVIL,
        source=EVIL,
        clip=replace(told.timeline.clip, id=EVIL),
        events=(*told.timeline.events, handed),
    )
    told = replace(told, timeline=timeline)
    wrong = replace(candidate(3, video="videos/3.mp4", answer="Here."), work={"reason": EVIL})
    items = [plain, told, wrong, Refused(EVIL, EVIL, EVIL)]
    admission = made(tmp_path, items)
    counts = {"asked": 1.0, "calls": 1.0, "tokens": 2.0, "cost": 0.5}
    page = page_of(tmp_path, admission, spent={EVIL: counts})
    clean = made(tmp_path / "clean", [plain])
    known = page_of(tmp_path / "clean", clean)
    assert page.tags["script"] == known.tags["script"] == 1 and page.handlers == []
    assert page.tags["select"] == 1 and not re.search(
        r"<(script|img)[^>]*(alert|onerror)", page.text
    )
    assert not any(
        "src" in tag and "x onerror" in tag for tag in re.findall(r"<img[^>]*>", page.text)
    )
    kinds = {article.kind for article in page.articles}
    assert f"rejected: named: {EVIL}" in kinds and f"admitted: {EVIL}" in kinds
    assert {value for value, _ in page.options[1:]} == kinds
    assert [EVIL, EVIL, EVIL] in page.rows("refused-before-any-stage", "item")
    assert EVIL in {row[0] for row in page.rows("what-it-cost", "agent")}


def test_costs_and_shares_stand_on_the_page(corpus: tuple[Path, Admission]) -> None:
    folder, admission = corpus
    counts = {"asked": 3.0, "calls": 2.0, "cached": 1.0, "tokens": 90.0, "cost": 0.25}
    page = page_of(folder, admission, 0, {"judge": counts})
    assert page.rows("what-it-cost", "agent") == [
        ["judge", "3", "2", "1", "0", "0", "90", "0", "0.25"]
    ]
    (share,) = page.rows("what-was-admitted", "share of")
    assert share[0].endswith("en") and share[1] == "30.0%"


def test_annotations_alone_have_a_page(tmp_path: Path) -> None:
    counts = {"convert/read": 3, "convert/written": 2, "convert/rejected": 1}
    converted(tmp_path / "report.html", EVIL, counts, tmp_path)
    page = Page(tmp_path / "report.html")
    found = {row[0]: int(row[1]) for row in page.rows("counts", "count")}
    assert found == counts and not page.tags["script"]
