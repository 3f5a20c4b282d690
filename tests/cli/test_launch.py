"""`unclip train --launch`: what it starts, and the scripts of `examples/cluster/`."""

import shutil
import subprocess
from pathlib import Path

import pytest

from unclip.cli.launch import slurm_script, torchrun, without_launch

ROOT = Path(__file__).parent.parent.parent
CLUSTER = ROOT / "examples" / "cluster"


def test_the_launched_command_is_the_given_one_without_the_launch():
    given = (
        "train clip --launch torchrun --data x --nodes=2 --processes 8 --set a=--nodes --rendezvous h:1 -o y"
    )
    words = without_launch(given.split())
    assert words == ["train", "clip", "--data", "x", "--set", "a=--nodes", "-o", "y"]
    assert torchrun(words, 2, 8, "h:1") == [
        *["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=8", "--max-restarts=3"],
        *["--rdzv-backend=c10d", "--rdzv-endpoint=h:1", "-m", "unclip.cli.main"],
        *words,
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nodes", 2), "give --rendezvous HOST:PORT"),
        (("--processes", 0), "--nodes and --processes must be at least 1"),
    ],
)
def test_what_cannot_be_launched_is_said(unclip, words, message):
    code, out, err = unclip("train", "clip", "--launch", "torchrun", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_slurm_scripts_are_printed(unclip):
    code, out, err = unclip("train", "clip", "--out", "a b", "--launch", "slurm", "--nodes", 4)
    assert (code, err) == (0, "")
    assert "#SBATCH --nodes=4\n#SBATCH --ntasks-per-node=8\n" in out
    assert "srun --kill-on-bad-exit=1 unclip train clip --out 'a b'\n" in out


def test_the_example_is_the_printed_script():
    script = (CLUSTER / "slurm.sbatch").read_text()
    (command,) = [line for line in script.splitlines() if line.startswith("srun")]
    words = command.split(" unclip ")[1].split()
    assert script == slurm_script(words, nodes=64, processes=8)


@pytest.mark.parametrize("script", sorted(CLUSTER.glob("*.s*")), ids=lambda path: path.name)
def test_examples_are_shell(script):
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run([bash, "-n", script], check=True)
