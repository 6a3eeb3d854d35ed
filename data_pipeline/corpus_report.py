"""The report of a corpus: its funnel, when things happen, and clips to look through."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from data_pipeline.admit import Admission
from data_pipeline.candidates import Candidate, Note
from data_pipeline.card import Checks, hours, percent, reasons
from data_pipeline.funnel import OTHERS, Funnel, Spent
from data_pipeline.lines import read_lines
from joyvl_train.frames import Frames
from joyvl_train.markup import Cell, Html, grid, headline, paragraph, plot, section, table, text
from joyvl_train.records import StreamLabels
from joyvl_train.report import page
from joyvl_train.shard_reader import Shard, read_index
from joyvl_train.strips import annotation, annotation_legend
from joyvl_train.timeline import Timeline, TimelineError

SURVEYED = 20_000
"""Clips whose event times are looked at; of more, evenly many of each shard."""

LOOKED_THROUGH = 50_000
"""Rejected clips among which those to be shown are looked for."""

LONGEST = 60
"""Seconds of a clip that are drawn; of a longer one, those around its first words."""

EACH_REFUSED = 3

_BINS = 10

OpenFrames = Callable[[Timeline], Frames]

_FILTER = """
<script>
(() => {
  const pick = document.getElementById("kind");
  const show = () => document.querySelectorAll("article[data-kind]").forEach(
    (each) => { each.hidden = pick.value !== "" && each.dataset.kind !== pick.value; });
  pick.addEventListener("change", show);
  const asked = decodeURIComponent(location.hash.slice(1));
  if (asked && [...pick.options].some((option) => option.value === asked)) {
    pick.value = asked;
    document.getElementById("clips").scrollIntoView();
  }
  show();
})();
</script>
"""


def report(
    path: Path,
    admission: Admission,
    funnel: Funnel,
    checks: Checks,
    spent: Spent,
    targets: Sequence[Mapping[str, Any]],
    frames: OpenFrames,
    shown: int = 40,
) -> None:
    """Writes the page of a corpus whose parts are done. `shown`: clips drawn second by second."""
    corpus, plan = admission.settled.work.folder.parent / "corpus", admission.settled.work.plan
    times = Times()
    for labels in _surveyed(corpus):
        times.add(labels.timeline)
    gone = funnel.status["rejected"] + funnel.status["unverified"]
    clips = _admitted(corpus, funnel, shown - min(gone, shown // 2))
    clips += _rejected(admission, funnel, shown - len(clips))
    parts = [
        section("In short", _headline(plan.read, funnel), paragraph(checks.told(funnel))),
        section("Funnel", _funnel(funnel), _reasons(funnel), intro=_FUNNEL_TEXT),
        section("What was admitted", grid(*_kinds(funnel)), _targets(targets)),
        section("When things happen", times.plots(), intro=times.told(funnel.whole.clips)),
        section("Clips", _clips(clips, frames), intro=_CLIPS_TEXT),
        section("Refused before any stage", _refused(plan.folder / "refused.jsonl")),
        section("What it cost", _spent(spent)),
    ]
    page(path, "Corpus", parts, f"{admission.settled.work.folder.parent}")


_FUNNEL_TEXT = (
    "Every candidate that a stage looked at is counted under its last verdict there. A stage that "
    "makes several clips of one adds candidates, so that a later stage may look at more."
)
_CLIPS_TEXT = (
    "Admitted clips of each family and rejected ones of each reason, as many of each as there is "
    "room for. The id is what command=inspect takes."
)


# The clips to look through


@dataclass(frozen=True)
class _Shown:
    """A clip to be drawn, and under which heading it is found."""

    kind: str
    id: str
    timeline: Timeline
    history: tuple[Note, ...]
    licence: str


def _surveyed(corpus: Path) -> Iterator[StreamLabels]:
    entries = [entry for entry in read_index(corpus)["shards"] if entry["records"]]
    each = max(1, SURVEYED // max(1, len(entries)))
    for entry in entries[:SURVEYED]:
        shard = Shard(corpus, entry)
        for number in range(min(each, len(shard))):
            told = shard.told(number)
            if isinstance(told, StreamLabels):
                yield told


def _admitted(corpus: Path, funnel: Funnel, room: int) -> list[_Shown]:
    families = {name: tally.clips for name, tally in funnel.by["family"].items()}
    quota = _quotas(families, room)
    found = []
    for told in _surveyed(corpus):
        family = told.timeline.family
        counted = family if family in quota else OTHERS
        if quota.get(counted, 0) > 0:
            quota[counted] -= 1
            history = tuple(Note(**note) for note in told.history)
            kind = f"admitted: {counted}"
            found.append(_Shown(kind, told.id, told.timeline, history, told.licence))
        if not any(quota.values()):
            break
    return sorted(found, key=lambda each: each.kind)


def _rejected(admission: Admission, funnel: Funnel, room: int) -> list[_Shown]:
    counts = {
        f"{verdict}: {stage}: {reason}": count
        for stage, verdict, reason, count in reasons(funnel)
        if verdict != "refused"
    }
    quota = _quotas(counts, room)
    found = []
    for number, candidate in enumerate(_each_rejected(admission)):
        note = candidate.history[-1]
        kind = f"{note.verdict}: {note.stage}: {note.reason}"
        if quota[kind] > 0:
            quota[kind] -= 1
            found.append(
                _Shown(kind, candidate.id, candidate.timeline, candidate.history, candidate.licence)
            )
        if number >= LOOKED_THROUGH or not any(quota.values()):
            break
    order = {kind: place for place, kind in enumerate(counts)}
    return sorted(found, key=lambda each: order[each.kind])


def _each_rejected(admission: Admission) -> Iterator[Candidate]:
    for part in range(len(admission.settled.work.plan.parts)):
        yield from admission.rejected(part)


def _quotas(counts: Mapping[str, int], room: int) -> Counter[str]:
    """How many of each kind to show: one after the other gets one more, as long as there is any."""
    quota: Counter[str] = Counter()
    while quota.total() < min(room, sum(counts.values())):
        for kind, count in counts.items():
            if quota[kind] < count and quota.total() < room:
                quota[kind] += 1
    return quota


def _clips(clips: Sequence[_Shown], frames: OpenFrames) -> Html:
    if not clips:
        return paragraph("No clip was admitted or rejected.")
    kinds = Counter(clip.kind for clip in clips)
    options = "".join(
        f'<option value="{text(kind)}">{text(kind)} ({count})</option>'
        for kind, count in kinds.items()
    )
    choice = (
        '<p><label for="kind">Show </label><select id="kind"><option value="">all</option>'
        f"{options}</select></p>"
    )
    drawn = "".join(_article(clip, frames) for clip in clips)
    return Html(f"{choice}{annotation_legend()}{drawn}{_FILTER}")


def _article(clip: _Shown, frames: OpenFrames) -> Html:
    timeline = clip.timeline
    try:
        opened = frames(timeline)
        seconds, missing = opened.seconds, ""
    except TimelineError as error:
        opened, missing = None, f"no pictures: {error.reason}"
        seconds = timeline.clip.seconds or 0

    def pictures(second: int) -> Sequence[Image.Image]:
        if opened is None or second >= opened.seconds:
            return ()
        try:
            return opened.frames(second)
        except TimelineError:
            return ()

    # A record that is rejected may tell of seconds that its clip doesn't have.
    last = max((event.second for event in timeline.events), default=-1)
    window = _window(timeline, max(seconds, min(last + 1, seconds + LONGEST)))
    drawn = annotation(timeline, pictures, window) if window else paragraph("No second is known.")
    part = "" if len(window) >= seconds else f", seconds {window.start} to {window.stop} shown"
    begin = f" from {timeline.clip.offset} s on" if timeline.clip.offset else ""
    facts = f"{timeline.clip.id}{begin}, {timeline.source}, {seconds} s{part}"
    notes = [part for part in (facts, clip.licence and f"licence {clip.licence}", missing) if part]
    rows: list[list[Cell]] = [
        [n.stage, n.verdict, ": ".join(filter(None, (n.reason, n.detail))), n.agent]
        for n in clip.history
    ]
    history = table(["stage", "verdict", "why", "agent"], rows) if rows else Html("")
    return Html(
        f'<article data-kind="{text(clip.kind)}"><h3>{text(clip.kind)}'
        f"<small><code>{text(clip.id)}</code></small></h3>"
        f'<p class="note">{text("; ".join(notes))}</p>{drawn}'
        f"<details><summary>history</summary>{history}</details></article>\n"
    )


def _window(timeline: Timeline, seconds: int) -> range:
    """The seconds to draw: all, or of a long clip those from a little before its first words."""
    if seconds <= LONGEST:
        return range(seconds)
    spoken = [event.second for event in timeline.of("assistant")]
    start = max(0, min(min(spoken, default=0) - LONGEST // 4, seconds - LONGEST))
    return range(start, start + LONGEST)


# When things happen


@dataclass
class Times:
    """Counts of event times: of the clips' lengths, of where in its clip the assistant speaks, and
    of the seconds from a query to what answers it."""

    clips: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    places: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    waits: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    rests: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, timeline: Timeline) -> None:
        seconds = timeline.clip.seconds
        if not seconds:
            return
        self.clips += 1
        self.lengths[_edge(seconds)] += 1
        times = {event.id: event.second for event in timeline.events}
        spoken = timeline.of("assistant")
        for event in spoken:
            self.places[timeline.family][_BINS * event.second // seconds] += 1
            if event.answers is not None:
                wait = event.second - times[event.answers]
                self.waits[timeline.family][min(60, max(0, wait))] += 1
        for one, other in zip(spoken, spoken[1:], strict=False):
            self.rests[timeline.family][min(60, other.second - one.second)] += 1

    def told(self, clips: int) -> str:
        which = f"Of {self.clips} of the {clips} admitted clips" if self.clips < clips else ""
        return (
            f"{which or 'Of all admitted clips'}. Waits of a minute and more count as one minute."
        )

    def plots(self) -> Html:
        if not self.clips:
            return paragraph("No clip was admitted.")
        places = {
            family: [((n + 0.5) / _BINS, counts[n] / counts.total()) for n in range(_BINS)]
            for family, counts in sorted(self.places.items())
        }
        lengths = [
            (float(edge), count / self.clips) for edge, count in sorted(self.lengths.items())
        ]
        return grid(
            plot(places, "Where in its clip the assistant speaks", "share of the clip", "share"),
            plot(_within(self.waits), "From a query to the answer", "seconds at most", "share"),
            plot(_within(self.rests), "From one answer to the next", "seconds at most", "share"),
            plot({"clips": lengths}, "Length of clips", "seconds", "share"),
        )


def _edge(seconds: int) -> int:
    """Lengths are counted in steps of ten seconds, from ten minutes on in one."""
    return min(600, 10 * (seconds // 10))


def _within(by_family: Mapping[str, Counter[int]]) -> dict[str, list[tuple[float, float]]]:
    """By family, for so many seconds, the share that takes no longer."""
    found = {}
    for family, counts in sorted(by_family.items()):
        sums = accumulate(counts[at] for at in range(max(counts) + 1))
        found[family] = [(float(at), so_far / counts.total()) for at, so_far in enumerate(sums)]
    return found


# Tables


def _headline(read: int, funnel: Funnel) -> Html:
    status, whole = funnel.status, funnel.whole
    return headline(
        [
            ("Items read", read, ""),
            ("Clips admitted", status["open"], f"of {funnel.read} candidates"),
            ("Hours", hours(whole), f"{whole.events} events"),
            ("Silent seconds", percent(whole.silence), ""),
            ("Rejected", status["rejected"], "with a reason"),
            ("Unverified", status["unverified"], "never admitted"),
            ("Refused", status["refused"], "before any stage"),
        ]
    )


def _funnel(funnel: Funnel) -> Html:
    rows: list[list[Cell]] = []
    for name, stage in funnel.stages.items():
        gone = stage.rejected.total() + stage.unverified.total()
        share = 1 - gone / stage.entered if stage.entered else 1.0
        rows.append(
            [
                name,
                stage.entered,
                stage.kept,
                stage.changed,
                stage.rejected.total(),
                stage.unverified.total(),
                _bar(share),
            ]
        )
    columns = ["stage", "entered", "kept", "changed", "rejected", "unverified", "goes on"]
    return table(columns, rows, "Stage by stage")


def _bar(share: float) -> Html:
    return Html(
        '<span style="display:inline-block;width:8rem;background:var(--soft)">'
        f'<span style="display:block;width:{100 * share:.1f}%;background:#7fb4dd">&nbsp;</span>'
        f"</span> {share:.0%}"
    )


def _reasons(funnel: Funnel) -> Html:
    rows: list[list[Cell]] = [[reason, s, verdict, n] for s, verdict, reason, n in reasons(funnel)]
    if not rows:
        return paragraph("Nothing was left out.")
    return table(["reason", "stage", "verdict", "clips"], rows, "Left out, by reason")


def _kinds(funnel: Funnel) -> Iterator[Html]:
    for kind, tallies in funnel.by.items():
        rows: list[list[Cell]] = [
            [name or "not told", t.clips, Html(hours(t)), t.events, Html(percent(t.silence))]
            for name, t in sorted(tallies.items())
        ]
        if rows:
            yield table([kind, "clips", "hours", "events", "silent seconds"], rows)


def _targets(targets: Iterable[Mapping[str, Any]]) -> Html:
    rows: list[list[Cell]] = [
        [
            t["what"],
            Html(percent(t["target"])),
            Html(percent(t["before"])),
            Html(percent(t["after"])),
            "yes" if t["met"] else f"no: {t['why']}",
        ]
        for t in targets
    ]
    columns = ["share of", "asked", "before", "after", "met"]
    return table(columns, rows, "Shares that were asked for") if rows else Html("")


def _refused(path: Path) -> Html:
    taken: Counter[str] = Counter()
    rows: list[list[Cell]] = []
    for number, line in enumerate(read_lines(path)):
        if taken[line["reason"]] < EACH_REFUSED:
            taken[line["reason"]] += 1
            rows.append([line["where"], line["reason"], line["detail"]])
        if number >= LOOKED_THROUGH:
            break
    if not rows:
        return paragraph("Nothing was refused.")
    return table(["item", "reason", "detail"], rows, f"Up to {EACH_REFUSED} of each reason")


def _spent(spent: Spent) -> Html:
    if not spent:
        return paragraph("Nothing: no agent was asked.")
    names = ("asked", "calls", "cached", "unparsed", "failed", "tokens", "seconds", "cost")
    rows: list[list[Cell]] = [
        [agent, *(counts.get(name, 0.0) for name in names)] for agent, counts in spent.items()
    ]
    return table(["agent", *names], rows)


def converted(path: Path, source: str, counts: Mapping[str, int], folder: Path) -> None:
    """Writes the page of annotations that became timelines alone."""
    rows: list[list[Cell]] = [[name, count] for name, count in counts.items()]
    note = f"{folder}: timelines.jsonl, rejects.jsonl"
    page(path, f"Converted: {source}", [section("Counts", table(["count", ""], rows))], note)
