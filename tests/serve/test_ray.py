"""The server on a Ray cluster of two nodes, one of which is lost while pictures are drawn."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.serve.processes import Server, postgres, postgres_programs, s3, s3_program, until
from unclip.errors import RequestError
from unclip.serve.ray_cluster import check_places, workers_for_queue
from unclip.serve.settings import Settings


class Seen:
    """What a policy reads of its context."""

    def __init__(self, pictures: float, least: int = 1, most: int = 4):
        self.aggregated_metrics = {"pictures": {"one": pictures, "two": pictures - 1}}
        self.capacity_adjusted_min_replicas, self.capacity_adjusted_max_replicas = least, most


def test_workers_follow_the_queue_within_bounds():
    assert [workers_for_queue(Seen(waiting))[0] for waiting in (0, 4, 5, 9, 100)] == [1, 1, 2, 3, 4]
    assert workers_for_queue(type("", (), {**vars(Seen(0)), "aggregated_metrics": None})())[0] == 1


def test_cluster_of_several_machines_needs_places_that_all_reach():
    check_places(Settings(), 1)
    with pytest.raises(RequestError, match="postgresql"):
        check_places(Settings(), 2)
    with pytest.raises(RequestError, match="s3"):
        check_places(Settings(database="postgresql://x@y/z"), 2)
    check_places(Settings(database="postgresql://x@y/z", store="s3://a/b"), 2)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed")
@pytest.mark.skipif(s3_program() is None, reason="moto_server is not installed")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_nodes_draw_and_one_is_lost(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    from ray.cluster_utils import Cluster

    with postgres() as url, s3(tmp_path / "s3.log") as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        second = cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        options = ["--ray", "--workers", "3", "--database", url, "--store", "s3://pictures/ray"]
        try:
            with Server(tmp_path, tiny_folder, *options, env={"RAY_ADDRESS": cluster.address}) as server:
                id = server.submit(n=12, seed=1, sampling={"decoder": {"steps": 300}})
                until(lambda: len(server.call("/api/queue")["workers"]) > 1, 180)
                cluster.remove_node(second)
                job = until(lambda: ended(server, id), 300)
                assert (job["state"], job["done"]) == ("done", 12)
                assert len({picture["id"] for picture in job["pictures"]}) == 12
        finally:
            cluster.shutdown()


def ended(server: Server, id: str) -> Any:
    """The job, once it is over. The application may be on the lost node, until Ray has started it on the other."""
    try:
        job = server.call(f"/api/jobs/{id}")
    except OSError:
        return None
    return job if job["ended"] else None
