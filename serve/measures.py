"""What a server counts, in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.quantile import quantile
from serve.sessions import Sessions


class _Lived(Collector):
    """Counts of events and latencies over all sessions, those that have ended too."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        living = [each for _, each in self._sessions if each.ended is None]
        yield GaugeMetricFamily("joyvl_sessions", "sessions that live", len(living))
        yield CounterMetricFamily("joyvl_sessions_opened", "sessions", self._sessions.opened)
        events = CounterMetricFamily("joyvl_events", "events of sessions", labels=["kind"])
        for kind, count in sorted(self._sessions.counted().items()):
            events.add_metric([kind], count)
        yield events
        dropped = sum(each.watched.feed.dropped for _, each in self._sessions)
        yield GaugeMetricFamily("joyvl_dropped_seconds", "seconds too many for a model", dropped)
        for name, what in (("latencies", "model"), ("overheads", "runtime")):
            values = [v for each in living for v in getattr(each.live, name)]
            family = GaugeMetricFamily(
                f"joyvl_step_{what}_seconds", f"a step of the {what}", labels=["quantile"]
            )
            for share in (0.5, 0.95):
                family.add_metric([str(share)], quantile(values, share))
            yield family


class Measures:
    """Counts requests, and tells of sessions as they stand when they are asked for."""

    KIND = CONTENT_TYPE_LATEST

    def __init__(self, sessions: Sessions) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Lived(sessions))
        self._requests = Counter(
            "joyvl_requests", "requests", ["route", "status"], registry=self._registry
        )

    def request(self, request: web.Request, status: int) -> None:
        """Counts a request under its route, never under what a client wrote."""
        resource = request.match_info.route.resource
        route = "none" if resource is None else resource.canonical
        self._requests.labels(route, str(status)).inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return bytes(generate_latest(self._registry))
