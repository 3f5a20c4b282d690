"""`unclip train ... --launch`: the same command in many processes, by torchrun, a SLURM script, or Ray Train."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from unclip.cli import console
from unclip.cli.console import UsageError

LAUNCHERS = ("torchrun", "slurm", "ray")
RESTARTS = 3
"""How often a run begins again, from its newest checkpoint, when one of its processes dies."""
_OWN = {"--launch": 1, "--nodes": 1, "--processes": 1, "--rendezvous": 1}


def add(parser: argparse.ArgumentParser) -> None:
    """The options of a verb that can be launched."""
    group = parser.add_argument_group("many processes")
    group.add_argument(
        "--launch",
        choices=LAUNCHERS,
        help="train in many processes: torchrun starts them here, slurm prints a script for sbatch, ray starts them on the "
        "cluster of RAY_ADDRESS, or on this machine",
    )
    group.add_argument("--nodes", type=int, default=1, metavar="N", help="machines (default: 1)")
    group.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="processes on each machine (default: one for each of its GPUs)",
    )
    group.add_argument(
        "--rendezvous",
        metavar="HOST:PORT",
        help="with torchrun on several machines: where they meet; give the same command on each",
    )


def run(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    """Start the command `given` (without the program's name) in many processes; the exit code."""
    if arguments.nodes < 1 or (arguments.processes is not None and arguments.processes < 1):
        raise UsageError("--nodes and --processes must be at least 1")
    words = without_launch(given)
    if arguments.launch == "slurm":
        console.result(
            slurm_script(words, nodes=arguments.nodes, processes=arguments.processes or 8).rstrip()
        )
        return 0
    processes = arguments.processes or _gpus()
    if arguments.launch == "ray":
        return _ray(words, arguments.nodes * processes)
    command = torchrun(words, arguments.nodes, processes, arguments.rendezvous)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *command])


def without_launch(given: Sequence[str]) -> list[str]:
    """The words of a command, without the options of this module."""
    kept, rest = [], iter(given)
    for word in rest:
        name, equals, _ = word.partition("=")
        if name not in _OWN:
            kept.append(word)
        elif not equals:
            next(rest, None)
    return kept


def torchrun(words: Sequence[str], nodes: int, processes: int, rendezvous: str | None) -> list[str]:
    """Arguments of `python` that start the processes of this machine, and start all again when one dies."""
    if nodes > 1 and rendezvous is None:
        raise UsageError(
            "several machines have to meet: give --rendezvous HOST:PORT, with the name of one of them, on each; or let "
            "SLURM start them (--launch slurm)"
        )
    where = ["--standalone"] if nodes == 1 else ["--rdzv-backend=c10d", f"--rdzv-endpoint={rendezvous}"]
    launch = [f"--nnodes={nodes}", f"--nproc-per-node={processes}", f"--max-restarts={RESTARTS}", *where]
    return ["-m", "torch.distributed.run", *launch, "-m", "unclip.cli.main", *words]


def slurm_script(words: Sequence[str], *, nodes: int, processes: int) -> str:
    """A script for `sbatch`: one task for each GPU; stopped gracefully before its time is up, and put back in the queue."""
    return f"""#!/bin/bash
#SBATCH --job-name=unclip-{words[1] if len(words) > 1 else "train"}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={processes}
#SBATCH --gpus-per-node={processes}
#SBATCH --cpus-per-task=12
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Ten minutes before the time is up, every task is asked to save and stop.
#SBATCH --signal=SIGTERM@600

export OMP_NUM_THREADS=4
# A finished run ends at once; a stopped or killed one goes on from its newest checkpoint.
srun --kill-on-bad-exit=1 unclip {shlex.join(words)}
status=$?
if [ "$status" -ne 0 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
"""


def _ray(words: Sequence[str], workers: int) -> int:
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise UsageError("--launch ray needs its package: pip install 'ray[train]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=True)
    gpus = int(ray.cluster_resources().get("GPU", 0)) >= workers
    trainer = TorchTrainer(
        worker,
        train_loop_config={"words": list(words), "folder": os.getcwd()},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=RESTARTS)),
    )
    trainer.fit()
    return 0


def worker(config: dict) -> None:
    """One process of Ray Train, whose process group exists already. Raises RuntimeError where the command fails."""
    from unclip.cli.main import main

    os.chdir(config["folder"])
    status = main(config["words"])
    if status:
        raise RuntimeError(f"unclip {shlex.join(config['words'])} ended with exit code {status}")


def _gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())
