"""A Ray cluster of two nodes on this machine does a work; one node is killed midway. Run by test_on_ray.py:

    python two_nodes.py WORK.pickle NODES.txt

The file may also hold a function that takes `run`, where works are done. Prints JSON: the outcome, the nodes that parts were encoded on before and after, and how many nodes were alive at last.
"""

import json
import os
import pickle
import socket
import sys
import threading
import time
from pathlib import Path

# Servers listen on this machine only, and slow machines are waited for.
os.environ |= {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "OMP_NUM_THREADS": "1",
}


class Watched:
    """A work that notes on which node each part is encoded."""

    def __init__(self, work, notes: str):
        self.work, self.notes = work, notes
        self.units, self.parts, self.is_done = work.units, work.parts, work.is_done
        self.load, self.finish = work.load, work.finish

    def encoder(self):
        import ray

        node, encode = ray.get_runtime_context().get_node_id(), self.work.encoder()

        def noted(part):
            with open(self.notes, "a") as file:
                file.write(node + "\n")
            # A node that is killed has work in hand.
            time.sleep(0.2)
            return encode(part)

        return noted


def ports() -> dict[str, int]:
    names = (
        "metrics_agent_port",
        "metrics_export_port",
        "dashboard_agent_listen_port",
        "runtime_env_agent_port",
    )
    sockets = [socket.socket() for _ in names]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = dict(zip(names, (one.getsockname()[1] for one in sockets)))
    for one in sockets:
        one.close()
    return found


def main() -> None:
    given, notes = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])

    import ray
    import ray._private.utils
    from ray.cluster_utils import Cluster as Nodes

    from unclip.batch.on_ray import Cluster, run_on_ray

    # As without the extra `default`, whose dashboard takes longer to start on a busy machine than Ray waits.
    ray._private.utils.get_dashboard_dependency_error = lambda: ImportError("no dashboard")
    small = {"num_cpus": 2, "object_store_memory": 80 << 20, "node_ip_address": "127.0.0.1"}
    nodes = Nodes(initialize_head=True, head_node_args={**small, **ports(), "include_dashboard": False})
    second = nodes.add_node(**small, **ports())
    ray.init(address=nodes.address, log_to_driver=False, logging_level="error", _node_ip_address="127.0.0.1")
    ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
    before: list[str] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        # Both are at work, and the one that goes has encoded something.
        while time.monotonic() < deadline:
            found = notes.read_text().split() if notes.exists() else []
            if second.node_id in found and len(set(found)) == 2:
                break
            time.sleep(0.05)
        before.extend(found)
        nodes.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = []

    def run(work):
        cluster = Cluster(address=nodes.address, gpus=0, encoders=2)
        outcomes.append(run_on_ray(Watched(work, sys.argv[2]), cluster))
        return outcomes[-1]

    if callable(given):
        given(run=run)
    else:
        run(given)
    (outcome,) = outcomes
    killer.join()
    result = {
        "done": outcome.done,
        "failed": outcome.failed,
        "nodes_before": len(set(before)),
        "encoded_before": len(before),
        "encoded": len(notes.read_text().split()),
        "alive": sum(one["Alive"] for one in ray.nodes()),
    }
    ray.shutdown()
    nodes.shutdown()
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
