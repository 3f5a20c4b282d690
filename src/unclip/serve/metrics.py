"""Measurements for Prometheus: of this process, and of the queue as the database has it."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from unclip.serve.errors import Unavailable

REGISTRY = CollectorRegistry()
REQUESTS = Counter("unclip_http_requests", "HTTP requests", ["method", "route", "status"], registry=REGISTRY)
SECONDS = Histogram(
    "unclip_http_request_seconds",
    "Duration of HTTP requests, without streams of events",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 120),
    registry=REGISTRY,
)
_PICTURES = Gauge("unclip_pictures", "Pictures in the queue, by state", ["state"], registry=REGISTRY)
_WORKERS = Gauge("unclip_workers", "Workers, by state", ["state"], registry=REGISTRY)
_PAUSED = Gauge("unclip_queue_paused", "Whether the queue is paused", registry=REGISTRY)
_DATABASE = Gauge("unclip_database_up", "Whether the database answers", registry=REGISTRY)
_DRAWING = Gauge(
    "unclip_picture_seconds", "Mean duration of the last ten pictures", ["model", "kind"], registry=REGISTRY
)
_LOADED = Gauge(
    "unclip_model_bytes", "Bytes of models that workers keep loaded", ["model"], registry=REGISTRY
)

STATES = ("waiting", "running", "done", "failed", "cancelled")


def exposition(service: Any) -> bytes:
    """The measurements in Prometheus' text format."""
    from sqlalchemy import func, select

    from unclip.serve.events import queue_view
    from unclip.serve.states import seconds_per_picture
    from unclip.serve.tables import pictures, tasks

    try:
        with service.database.read() as connection:
            query = select(tasks.c.state, func.count()).group_by(tasks.c.state)
            counts = {row[0]: row[1] for row in connection.execute(query)}
            for state in STATES:
                _PICTURES.labels(state).set(counts.get(state, 0))
            queue = queue_view(connection)
            _PAUSED.set(queue["paused"])
            _WORKERS.clear()
            _LOADED.clear()
            for worker in queue["workers"]:
                _WORKERS.labels(worker["state"]).inc()
                for model, size in worker["loaded"].items():
                    _LOADED.labels(model).inc(size)
            pairs = connection.execute(select(pictures.c.model, pictures.c.kind).distinct().limit(100)).all()
            for model, kind in pairs:
                _DRAWING.labels(model, kind).set(seconds_per_picture(connection, model, kind) or 0.0)
        _DATABASE.set(1)
    except Unavailable:
        _DATABASE.set(0)
    return generate_latest(REGISTRY)
