"""What the server costs: pictures a second and latency by HTTP, beside the same requests on the bare model.

    python benchmarks/serving.py --model artwork --clients 1 8 64 --pictures 24
    python benchmarks/serving.py --soak 30m

Server, queue and one worker run as `unclip serve` starts them, on this machine. The bare model and the server take turns,
so that other programs on the machine disturb both alike. Printed are

- idle: milliseconds from a job's submission to its picture, beyond what the bare model takes for it, median of `--pictures`;
- saturated: pictures a second with so many clients, and its share of the bare model's;
- preview: steps of the decoder that were done when the first preview arrived;
- processor time a picture, of the bare model, the server and its worker (Linux), which other programs disturb less.

The last lines are a table for `docs/serve/operating.md`. With the bundled model, 2 cores and the defaults, the first
command takes 15 minutes. `--soak` keeps `--clients` (the first number) busy for so long with new pictures, variations,
cancellations and looks into the library, and prints memory and latencies every minute and at the end.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
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

    def draw(
        self, request: dict[str, Any], picture: str | None = None
    ) -> tuple[float, list[tuple[str, Any]]]:
        """Seconds from submission to the end, and the events. `picture` is the id of a given one."""
        started = time.perf_counter()
        sources = {} if picture is None else {"picture": picture}
        id = self.call("/api/jobs", {"request": request, "sources": sources})["id"]
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


def processor_seconds(pid: int) -> float:
    """Processor time of a process so far; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Megabytes of memory that a process takes; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


class Served:
    """A running server, its client, and the numbers of its processes."""

    def __init__(self, process: "subprocess.Popen[bytes]"):
        assert process.stdout is not None
        self.client = Client(process.stdout.readline().decode().strip())
        self.server = process.pid
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        self.workers = [int(one) for one in children.read_text().split()] if children.exists() else []

    def seconds(self) -> tuple[float, float]:
        """Processor time of the server, and of its workers."""
        return processor_seconds(self.server), sum(map(processor_seconds, self.workers))


@contextlib.contextmanager
def running(arguments: argparse.Namespace) -> Iterator[Served]:
    """A server with one worker, as `unclip serve` starts it."""
    device = [] if arguments.device is None else ["--device", arguments.device]
    batch = [] if arguments.batch is None else ["--batch", str(arguments.batch)]
    with tempfile.TemporaryDirectory() as folder:
        command = ["serve", "--port", "0", "--folder", folder, "--model", f"one={arguments.model}"]
        server = subprocess.Popen(
            [sys.executable, "-c", START, *command, *device, *batch],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Served(server)
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="artwork")
    parser.add_argument("--device")
    parser.add_argument("--batch", type=int, help="pictures drawn together, as of `unclip serve`")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", help="so long, such as 30m or 90s")
    arguments = parser.parse_args()
    with running(arguments) as served:
        if arguments.soak:
            soak(served, arguments.clients[0] if arguments.clients != [1, 8, 64] else 8, arguments.soak)
        else:
            measure(served, arguments)


def measure(served: Served, arguments: argparse.Namespace) -> None:
    """Print the measurements, each picture once on the bare model and once by the server."""
    from unclip.generate.model import Model

    model = Model.load(arguments.model, device=arguments.device)
    client = served.client
    bare(model, [0])
    client.draw(request_of(0))
    alone, times, first = [], [], []
    used, before = [0.0, 0.0, 0.0], 0.0
    for seed in range(arguments.pictures):
        before = time.process_time()
        alone += bare(model, [seed])
        used[0] += time.process_time() - before
        start = served.seconds()
        seconds, events = client.draw(request_of(seed))
        for index, (then, now) in enumerate(zip(start, served.seconds()), start=1):
            used[index] += now - then
        times.append(seconds)
        steps = [data["step"] for kind, data in events if kind == "preview"]
        first += steps[:1]
    extra = statistics.median(1000 * (after - one) for one, after in zip(alone, times))
    print(f"bare model         {1000 * statistics.median(alone):8.1f} ms a picture")
    print(f"idle, added        {extra:8.1f} ms (median of {len(times)})")
    if first:
        print(f"first preview      {statistics.median(first):8.1f} decoder steps (median)")
    own, server, worker = (1000 * seconds / arguments.pictures for seconds in used)
    print(f"processor time     {own:8.1f} ms bare; server {server:.1f} ms, worker {worker:.1f} ms a picture")
    cells = [f"{1000 * statistics.median(alone):.0f} ms", f"{extra:.0f} ms"]
    for clients in arguments.clients:
        shares = []
        for _ in range(arguments.rounds):
            seconds = sum(bare(model, range(arguments.pictures)))
            shares.append((seconds, saturated(client, clients, arguments.pictures)))
        rate = arguments.pictures / statistics.median(after for _, after in shares)
        share = statistics.median(one / after for one, after in shares)
        print(
            f"{clients:3} clients        {rate:8.2f} pictures a second, {100 * share:.1f} % of the bare model"
        )
        cells.append(f"{rate:.2f} ({100 * share:.0f} %)")
    print(f"| model | bare | idle, added | {' | '.join(f'{one} clients' for one in arguments.clients)} |")
    print(f"| {arguments.model} | {' | '.join(cells)} |")


def soak(served: Served, clients: int, duration: str) -> None:
    """Keep the server busy, and print its memory and the latencies of each kind of call."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(duration[-1:], 0)
    end = time.monotonic() + float(duration[:-1] if unit else duration) * (unit or 1)
    times: dict[str, list[float]] = {"picture": [], "variation": [], "cancelled": [], "library": []}
    failed: list[str] = []
    served.client.draw(request_of(0))
    threads = [
        threading.Thread(target=_visit, args=(served.client, number, end, times, failed))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    sizes = []
    while any(thread.is_alive() for thread in threads):
        sizes.append((memory(served.server), sum(map(memory, served.workers))))
        print(_minute(sizes[-1], times), flush=True)
        time.sleep(min(60.0, max(2.0, end - time.monotonic())))
    for thread in threads:
        thread.join()
    sizes.append((memory(served.server), sum(map(memory, served.workers))))
    middle = sizes[len(sizes) // 2]
    for index, name in enumerate(("server", "worker")):
        print(f"{name} memory: {middle[index]:.0f} MB half way, {sizes[-1][index]:.0f} MB at the end")
    for kind, found in times.items():
        print(f"{kind:10} {_percentiles(found)}")
    print(f"failed calls: {len(failed)} {failed[:3] if failed else ''}")


def _visit(client: Client, number: int, end: float, times: dict[str, list[float]], failed: list[str]) -> None:
    """What one client does: draws, varies the result, cancels every fifth job, and looks into the library."""
    count = 0
    while time.monotonic() < end:
        count += 1
        try:
            seconds, events = client.draw(request_of(1000 * number + count))
            times["picture"].append(seconds)
            picture = next(data["picture"]["id"] for kind, data in events if kind == "picture")
            started = time.perf_counter()
            client.call("/api/pictures?limit=50&query=rocket")
            times["library"].append(time.perf_counter() - started)
            if count % 5 == 0:
                started = time.perf_counter()
                job = client.call("/api/jobs", {"request": request_of(count)})["id"]
                client.call(f"/api/jobs/{job}/cancel", {})
                times["cancelled"].append(time.perf_counter() - started)
            seconds, _ = client.draw({"kind": "vary"}, picture)
            times["variation"].append(seconds)
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}"[:200])
            time.sleep(1.0)


def _minute(size: tuple[float, float], times: dict[str, list[float]]) -> str:
    done = sum(map(len, times.values()))
    return f"{time.strftime('%H:%M:%S')} server {size[0]:.0f} MB, worker {size[1]:.0f} MB, {done} calls"


def _percentiles(found: Sequence[float]) -> str:
    if len(found) < 2:
        return f"{len(found)} calls"
    cuts = statistics.quantiles(found, n=100, method="inclusive")
    shown = ", ".join(f"p{at} {1000 * cuts[at - 1]:.0f}" for at in (50, 90, 95, 99))
    return f"{len(found)} calls, ms: {shown}, longest {1000 * max(found):.0f}"


if __name__ == "__main__":
    main()
