"""The server on Ray Serve: replicas of the application, and workers that Ray places on GPUs and scales with the queue.

Queue, library and pictures stay in the database and the store: a replica or a node may end at any moment.
"""

import json
import logging
import math
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from unclip.errors import RequestError
from unclip.serve.settings import Settings

logger = logging.getLogger(__name__)

APP, WORKERS = "unclip", "unclip-workers"
PICTURES_PER_WORKER = 4
"""Waiting pictures for which one worker more is started."""


class Drawing:
    """A replica that draws: a worker in a thread. Ray starts it again when its health check fails."""

    def __init__(self, settings: str):
        from unclip.serve.logs import configure_logging
        from unclip.serve.worker import Worker

        configure_logging()
        self._worker = Worker(Settings(**json.loads(settings)))
        self._worker.keep_memory()
        self._thread = threading.Thread(target=self._worker.run, name="worker", daemon=True)
        self._thread.start()

    def check_health(self) -> None:
        """Raise `RuntimeError` where the worker has ended."""
        if not self._thread.is_alive():
            raise RuntimeError("the worker has ended")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Pictures that wait or are drawn, for `workers_for_queue`."""
        return {"pictures": float(self._worker.queue.open_pictures())}

    def __del__(self) -> None:
        """Give up what is being drawn, which waits again."""
        self._worker.stop(now=True)
        self._thread.join(10.0)


def workers_for_queue(context: Any) -> tuple[int, dict[str, Any]]:
    """Number of workers for the pictures in the queue (an autoscaling policy of Ray Serve)."""
    seen = (context.aggregated_metrics or {}).get("pictures", {})
    pictures = max(seen.values(), default=0.0)
    wanted = math.ceil(pictures / PICTURES_PER_WORKER)
    least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return max(least, min(most, wanted)), {}


def deploy(
    settings: Settings,
    build: Callable[[], Any],
    *,
    host: str,
    port: int,
    servers: int = 1,
    most_workers: int = 1,
) -> None:
    """Deploy the application that `build` makes, and its workers, on the cluster that Ray is connected to.

    Raises `RequestError` for a database or a store that other machines of the cluster cannot reach.
    """
    import ray
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, HTTPOptions

    check_places(settings, sum(1 for node in ray.nodes() if node["Alive"]))
    gpus = int(ray.cluster_resources().get("GPU", 0)) if settings.device != "cpu" else 0
    serve.start(http_options=HTTPOptions(host=host, port=port))
    front: Any = serve.deployment(
        serve.ingress(build)(type("Front", (), {})),
        name="front",
        num_replicas=servers,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.1},
    )
    scaling = AutoscalingConfig(
        min_replicas=1,
        initial_replicas=1,
        max_replicas=most_workers,
        upscale_delay_s=2.0,
        downscale_delay_s=60.0,
        metrics_interval_s=1.0,
        look_back_period_s=2.0,
        policy=AutoscalingPolicy(policy_function=workers_for_queue),
    )
    drawing: Any = serve.deployment(
        Drawing,
        name="drawing",
        autoscaling_config=scaling,
        ray_actor_options={"num_cpus": 1, "num_gpus": 1 if gpus else 0},
        health_check_period_s=5.0,
    )
    serve.run(drawing.bind(json.dumps(asdict(settings))), name=WORKERS, route_prefix=None)
    serve.run(front.bind(), name=APP, route_prefix="/")


def check_places(settings: Settings, nodes: int) -> None:
    """Raise `RequestError` where a cluster of several nodes would keep its queue or pictures on one of them."""
    if nodes < 2:
        return
    if settings.database_url.startswith("sqlite"):
        raise RequestError(
            f"SQLite is a file of one machine, and the cluster has {nodes}: give --database postgresql://..."
        )
    if settings.store is None:
        raise RequestError(
            f"the pictures' folder is one machine's, and the cluster has {nodes}: give --store s3://BUCKET/PREFIX, or a "
            "folder that all machines share"
        )


def serve_on_ray(
    settings: Settings,
    build: Callable[[], Any],
    *,
    host: str,
    port: int,
    most_workers: int,
    on_start: Callable[[int], object],
) -> None:
    """Deploy on the cluster of `RAY_ADDRESS`, or of this machine, until a signal."""
    import signal

    import ray
    from ray import serve

    ended = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: ended.set())
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    port = port or _free_port(host)
    try:
        deploy(settings, build, host=host, port=port, most_workers=most_workers)
        on_start(port)
        ended.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def _free_port(host: str) -> int:
    """A port that nothing listens on: Ray's proxies are given one, and do not choose."""
    import socket

    with socket.socket() as one:
        one.bind((host, 0))
        return one.getsockname()[1]
