"""The report's pieces: well formed, self-contained, escaped, and showing what happened."""

import io
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from joyvl_train import markup, report, strips
from joyvl_train.actions import Action, Delegation, Response, Silence
from joyvl_train.heldout import Step, Trace, metrics
from joyvl_train.markup import Html, document, plot, section, table, text, ticks
from joyvl_train.report import chosen, curves, headline, interval, measures, read_log
from joyvl_train.report_style import STYLE
from joyvl_train.timeline import Clip, Event, Rule, Timeline
from joyvl_train.timing import Onset

EVIL = "<script>alert('x')</script> & \"quoted\""
VOID = {"meta", "img", "br", "path", "circle", "use"}


class Reader(HTMLParser):
    """Checks that tags nest, and collects them."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(document)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


ONSETS = (
    Onset(3, "A car.", until=7, rule=Rule("exact"), id="a"),
    Onset(12, EVIL, rule=Rule("exact"), id="b"),
    Onset(15, "One moment.", delegation=True, id="c"),
    Onset(21, "A bus.", rule=Rule("exact"), id="d"),
    Onset(26, "A dog.", until=29, rule=Rule("judged"), id="e"),
)
SAID: dict[int, Action] = {
    3: Response("A car."),
    5: Response("A car."),
    9: Response(EVIL),
    15: Delegation("Let me see.", "How many?"),
    21: Response("A cat."),
    28: Response("A dog."),
}


def trace() -> Trace:
    steps = [
        Step(
            t,
            SAID.get(t, Silence()),
            queries=(EVIL,) if t == 1 else (),
            results=((1, "42 in all"),) if t == 18 else (),
            malformed="empty" if t == 22 else None,
            reply=EVIL if t == 22 else None,
            truncated=t == 21,
        )
        for t in range(30)
        if t != 24
    ]
    return Trace("clip <1>", "alerting", "test", "model", tuple(steps), ONSETS)


def pictures(second: int) -> tuple[Image.Image, ...]:
    return (Image.new("RGB", (320, 180), (second * 8, 90, 90)),)


def whole_page() -> str:
    found = metrics([trace()], samples=20) | metrics([trace()], "baseline/always_silent", samples=5)
    log = [{"step": i, "loss": 1 / (i + 1), "note": "x"} for i in range(5)]
    return document(
        EVIL,
        [
            section("Headline", headline([("Onset F1", 0.5, interval(found, "eval/onset_f1"))])),
            section("Curves", curves(log, {"Loss": ["loss"], "Nothing": ["never"]}), intro=EVIL),
            section("Measures", measures(found)),
            section("Table", table(["a", EVIL], [[EVIL, 0.5], ["x", None]], EVIL)),
            section("Strips", strips.legend(), strips.strip(trace(), pictures)),
        ],
        EVIL,
    )


def test_a_page_nests_loads_nothing_and_escapes_all() -> None:
    document = whole_page()
    reader = Reader(document)
    assert not reader.all("script")
    assert not reader.all("link")
    for attributes in (a for _, a in reader.tags):
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,"))
    assert "http" not in document.replace("http-equiv", "")
    assert "url(" not in document
    assert reader.words.count(EVIL) >= 5
    links = [a["href"] for a in reader.all("a")]
    assert links == [f"#{a['id']}" for a in reader.all("section")]
    assert len(set(links)) == 5
    assert reader.all("html")[0]["lang"] == "en"


def test_symbols_in_use_are_drawn_and_named() -> None:
    reader = Reader(whole_page())
    drawn = {a["id"] for a in reader.all("symbol")}
    used = {(a["href"] or "").removeprefix("#") for a in reader.all("use")}
    assert used <= drawn == {f"s-{name}" for name in markup.SYMBOLS}
    assert all(a.get("alt") for a in reader.all("img"))
    for tag, attributes in reader.tags:
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


def row(document: str, name: str) -> list[str]:
    """The classes of a strip's row, second by second."""
    found = []
    for line in re.findall(rf'<tr class="{name}">(.*?)</tr>', document):
        found += re.findall(r'<td(?: class="([^"]*)")?', line)
    return found


def test_a_strip_shows_each_second_as_it_came_out() -> None:
    document = strips.strip(trace(), pictures)
    said = row(document, "said")
    assert len(said) == 30
    assert {t: kind for t, kind in enumerate(said) if kind} == {
        3: "hit",
        5: "repeat",
        9: "false-alarm",
        15: "hit",
        21: "wrong-text",
        22: "malformed",
        28: "late",
    }
    gold = row(document, "gold")
    assert [gold[t] for t in (3, 4, 5, 6, 7)] == ["held window"] * 2 + ["held"] * 2 + [""]
    assert [t for t, kind in enumerate(gold) if kind == "missed"] == [12, 26]
    assert row(document, "frame")[24] == "blank"
    words = " ".join(Reader(document).words)
    for note in (
        "3 of 5 in time",
        "1 false alarm,",
        "in time, right text",
        "in time, wrong text, cut at the token limit",
        "said again",
        "malformed (empty)",
        "How many?",
        "42 in all",
    ):
        assert note in words, note


def test_an_annotation_shows_what_is_due_and_what_holds() -> None:
    events = [
        Event("q", 0.0, "user", EVIL),
        Event("a", 3.0, "assistant", "A car.", answers="q", until=5.5),
        Event("b", 11.0, "assistant", "One moment.", question="How many?", answers="q"),
    ]
    timeline = Timeline(Clip("c", 12.0), "alerting", "events", events)
    document = strips.annotation(timeline, pictures, range(12))
    said = row(document, "said")
    assert {t: kind for t, kind in enumerate(said) if kind} == {
        3: "hit",
        4: "held",
        5: "held",
        11: "hit",
    }
    # Each kind of cell of a row that says something has its look.
    assert all(f"tr.said td.{kind}" in STYLE for kind in ("hit", "held"))
    words = " ".join(Reader(document).words)
    assert "A car. (until 5.5 s)" in words and "[delegates: How many?]" in words


def test_an_unscored_match_is_called_so() -> None:
    onset = Onset(1, "x", rule=Rule("judged"))
    short = Trace("c", "qa", "t", "m", (Step(0), Step(1, Response("y"))), (onset,))
    assert "in time, text unscored" in strips.strip(short, pictures)
    assert "right text" in strips.strip(short, pictures, right=lambda o, said: True)


def test_a_clip_without_words() -> None:
    quiet = Trace("c", "qa", "test", "model", (Step(0), Step(1)), ())
    assert "Nothing was said, and nothing was due." in strips.strip(quiet, pictures)
    Reader(strips.strip(Trace("c", "qa", "test", "model", (), ()), pictures))


def test_thumbnails_are_small_jpegs() -> None:
    data = strips.thumbnail(Image.new("RGBA", (640, 360)))
    image = Image.open(io.BytesIO(b64decode(data.removeprefix("data:image/jpeg;base64,"))))
    assert (image.format, image.size) == ("JPEG", (164, 92))
    small = strips.thumbnail(Image.new("L", (8, 4)))
    assert Image.open(io.BytesIO(b64decode(small.partition(",")[2]))).size == (8, 4)


def test_measures_stand_beside_baselines_with_interval_and_count() -> None:
    found = {
        "eval/onset_f1": 0.913,
        "eval/onset_f1.low": 0.89,
        "eval/onset_f1.high": 0.93,
        "eval/onset_f1.count": 1412.0,
        "eval/qa/onset_f1": 0.8,
        "baseline/poll/onset_f1": 0.2,
        "baseline/poll/qa/onset_f1": 0.1,
        "train/seconds": 9.0,
    }
    document = measures(found)
    assert "0.91<small>0.89 to 0.93</small><small>n = 1,412</small>" in document
    heads = re.findall(r'<th scope="col">(.*?)</th>', document)
    assert heads.count("Onset F1") == 3
    assert "poll" in heads
    assert interval(found, "eval/onset_f1") == "0.89 to 0.93, n = 1,412"
    assert interval(found, "eval/qa/onset_f1") == ""


def test_measures_of_chosen_prefixes_and_families() -> None:
    found = {"transfer/onset_f1": 0.5, "transfer/qa/onset_f1": 0.4, "transfer/b/onset_f1": 0.3}
    document = measures(found, ["transfer", "baseline/base_polled"], ["qa"])
    assert "0.40" in document
    assert "0.30" not in document
    assert "base polled" in document
    assert "0.30" in measures(found, ["transfer"])


def test_curves_show_what_changed() -> None:
    log = [
        {"step": i, "lr": 1.0 - i, "train/loss": i, "same": 1, "eval/f.low": i, "ok": i > 0}
        for i in range(3)
    ]
    shown = re.findall(r"<figcaption>(.*?)</figcaption>", curves(log))
    assert shown == ["train/loss", "lr"]
    assert "Nothing was logged." in curves([])


def test_clips_are_chosen_by_turns_the_worst_first() -> None:
    def clip(family: str, misses: int) -> Trace:
        onsets = tuple(Onset(5 * i, "x") for i in range(misses))
        return Trace("c", family, "t", "m", tuple(Step(t) for t in range(30)), onsets)

    traces = [clip("a", 1), clip("a", 3), clip("b", 0), clip("a", 2), clip("b", 1)]
    assert chosen(traces, 10) == [1, 4, 0, 2, 3]
    assert chosen(traces, 2) == [1, 4]
    with pytest.raises(ValueError, match="1 cases but 0 traces"):
        report.strips([(None, None)], [])  # type: ignore[list-item]


def test_plot_leaves_out_what_is_no_number_and_tells_lines_apart() -> None:
    drawn = plot({"a": [(0, 1.0), (1, float("nan")), (2, 3.0)], "b": [(1, 2.0)], "c": []}, "T")
    Reader(drawn)
    assert "T over step: a ends at 3, b ends at 2" in drawn
    lines = re.findall(
        r'<path class="line" stroke="(.*?)" stroke-dasharray="(.*?)" d="M(.*?)"', drawn
    )
    long = [line for line in lines if "H25" not in line[2] and not line[2].startswith("1 4")]
    assert len({line[:2] for line in long}) == 2
    assert "nan" not in drawn.lower()
    assert "Nothing was logged." in plot({"a": [(0, float("inf"))]}, "T")


@given(
    st.lists(
        st.tuples(
            st.floats(-1e9, 1e9, allow_subnormal=False), st.floats(-1e9, 1e9, allow_subnormal=False)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_plot_stays_in_its_frame(points: list[tuple[float, float]]) -> None:
    drawn = plot({"a": points}, "T")
    path = re.findall(r'<path class="line" [^>]* d="M([^"H]*)"/>', drawn)[0]
    for place in path.split("L"):
        x, y = map(float, place.split())
        assert 0 <= x <= 420
        assert 0 <= y <= 226


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0.2, 3.9, [0, 1, 2, 3, 4]),
        (-3, 5, [-4, -2, 0, 2, 4, 6]),
        (7, 7, [7]),
    ],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


def test_cells() -> None:
    assert text("<") == "&lt;"
    assert text(Html("<b>")) == "<b>"
    assert text(None) == text(float("nan")) == "–"
    assert [text(v) for v in (0.93124, 12345.6, -0.5, 3e-5, 0.0, 7)] == [
        "0.9312",
        "12,346",
        "−0.5",
        "3e−05",
        "0",
        "7",
    ]
    with pytest.raises(ValueError, match="a row of 1 cells under 2"):
        table(["a", "b"], [["x"]])


def test_files(tmp_path: Path) -> None:
    report.page(tmp_path / "report.html", "é", [])
    assert "<title>é</title>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n[1]\n{"step": 2, "lo')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "loss": 2.0}]
