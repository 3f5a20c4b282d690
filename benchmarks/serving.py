"""What the server costs: pictures a second and latency by HTTP, beside the same requests on the bare model.

    python benchmarks/serving.py --model artwork --clients 1 8 64 --pictures 24

Server, queue and one worker run as `unclip serve` starts them, on this machine. The bare model and the server take turns,
so that other programs on the machine disturb both alike. Printed are

- idle: milliseconds from a job's submission to its picture, beyond what the bare model takes for it, median of `--pictures`;
- saturated: pictures a second with so many clients, and its share of the bare model's;
- preview: steps of the decoder that were done when the first preview arrived.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

START = "import sys; from unclip.cli.main import main; sys.exit(main(sys.argv[1:]))"


class Client:
    """A client of our own API."""

    def __init__(self, url: str):
        self.url = url

    def call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(
            urllib.request.Request(self.url + path, data=data), timeout=600
        ) as answer:
            return json.load(answer)

    def draw(self, request: dict[str, Any]) -> tuple[float, list[tuple[str, Any]]]:
        """Seconds from submission to the end, and the events."""
        started = time.perf_counter()
        id = self.call("/api/jobs", {"request": request})["id"]
        found = []
        with urllib.request.urlopen(f"{self.url}/api/jobs/{id}/events", timeout=600) as answer:
            kind = ""
            for line in answer:
                text = line.decode().rstrip()
                if text.startswith("event: "):
                    kind = text[7:]
                elif text.startswith("data: "):
                    found.append((kind, json.loads(text[6:])))
                    if kind == "end":
                        break
        return time.perf_counter() - started, found


def request_of(seed: int) -> dict[str, Any]:
    """A request for one picture."""
    return {"kind": "generate", "prompt": "a red rocket, 3d style", "seed": seed}


def bare(model: Any, seeds: Sequence[int]) -> list[float]:
    """Seconds of each picture on the bare model, with its PNG."""
    from unclip.generate.operations import read_request

    found = []
    for seed in seeds:
        started = time.perf_counter()
        for image in model.run(read_request(request_of(seed))):
            image.png()
        found.append(time.perf_counter() - started)
    return found


def saturated(client: Client, clients: int, pictures: int) -> float:
    """Seconds in which so many clients draw the pictures."""
    left, lock = list(range(pictures)), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not left:
                    return
                seed = left.pop()
            client.draw(request_of(seed))

    threads = [threading.Thread(target=work) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="artwork")
    parser.add_argument("--device")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    from unclip.generate.model import Model

    model = Model.load(arguments.model, device=arguments.device)
    device = [] if arguments.device is None else ["--device", arguments.device]
    with tempfile.TemporaryDirectory() as folder:
        command = ["serve", "--port", "0", "--folder", folder, "--model", f"one={arguments.model}", *device]
        server = subprocess.Popen(
            [sys.executable, "-c", START, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert server.stdout is not None
            client = Client(server.stdout.readline().decode().strip())
            bare(model, [0])
            client.draw(request_of(0))
            measure(client, model, arguments)
        finally:
            server.terminate()
            server.wait()


def measure(client: Client, model: Any, arguments: argparse.Namespace) -> None:
    """Print the measurements, each picture once on the bare model and once by the server."""
    alone, served, first = [], [], []
    for seed in range(arguments.pictures):
        alone += bare(model, [seed])
        seconds, events = client.draw(request_of(seed))
        served.append(seconds)
        steps = [data["step"] for kind, data in events if kind == "preview"]
        first += steps[:1]
    extra = [1000 * (after - before) for before, after in zip(alone, served)]
    print(f"bare model         {1000 * statistics.median(alone):8.1f} ms a picture")
    print(f"idle, added        {statistics.median(extra):8.1f} ms (median of {len(extra)})")
    if first:
        print(f"first preview      {statistics.median(first):8.1f} decoder steps (median)")
    for clients in arguments.clients:
        shares = []
        for _ in range(arguments.rounds):
            before = sum(bare(model, range(arguments.pictures)))
            shares.append((before, saturated(client, clients, arguments.pictures)))
        rate = arguments.pictures / statistics.median(after for _, after in shares)
        share = statistics.median(before / after for before, after in shares)
        print(
            f"{clients:3} clients        {rate:8.2f} pictures a second, {100 * share:.1f} % of the bare model"
        )


if __name__ == "__main__":
    main()
