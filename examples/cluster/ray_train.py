"""Trains a stage on a Ray cluster: each of Ray Train's workers is one process of the run.

python examples/cluster/ray_train.py --workers 8 -- decoder --recipe dalle2 --data shards --out runs/decoder --clip runs/clip

It is what `unclip train ... --launch ray` does, written out, for programs that prepare something else beside. `RAY_ADDRESS`
names the cluster; without it, one begins on this machine. A worker that dies is replaced, and the run goes on from its newest
checkpoint.
"""

import argparse
import os

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from unclip.cli.main import main as unclip


def train(config: dict) -> None:
    """One worker. Ray Train has begun the process group, and `unclip train` takes it."""
    os.chdir(config["folder"])
    if unclip(["train", *config["arguments"]]):
        raise RuntimeError("unclip train failed: its message is in this worker's log")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--gpu", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("arguments", nargs="+", help="what follows `unclip train`")
    args = parser.parse_args(argv)
    ray.init()
    trainer = TorchTrainer(
        train,
        train_loop_config={"arguments": args.arguments, "folder": os.getcwd()},
        scaling_config=ScalingConfig(num_workers=args.workers, use_gpu=args.gpu),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=3)),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
