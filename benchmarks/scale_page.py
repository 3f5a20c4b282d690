"""docs/scale.md, written from `scale_plan.py` and `cluster_simulation.py`: every figure on it is computed here.

python benchmarks/scale_page.py                # prints the page, in a minute
python benchmarks/scale_page.py --write        # and replaces docs/scale.md
"""

import argparse
from dataclasses import replace
from pathlib import Path

from cluster_simulation import expected_loss, loader_stalls, simulate
from scale_plan import (
    A100_PEAK,
    GPU_HOURS_PER_FAILURE,
    GPU_MEMORY,
    GPU_PRICE,
    HOST_RATE,
    SHARDS,
    STATE,
    STORE_RATE,
    TRANSFORMER_MFU,
    UNET_MFU,
    Plan,
    plans,
    sd2_forward,
)

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
SEEDS = 20


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, to three digits."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def networks_table(found: list[Plan]) -> str:
    """What was counted."""
    head = [
        "stage",
        "parameters",
        "forward, TFLOP a sample",
        "activations, MB a sample",
        "with checkpointing",
    ]
    rows = [
        [
            plan.stage.name,
            f"{plan.counted.parameters / 1e6:,.0f} M",
            f"{plan.counted.forward / 1e12:.3g}",
            f"{plan.counted.activations / 1e6:,.0f}",
            f"{plan.counted.checkpointed / 1e6:,.0f}",
        ]
        for plan in found
    ]
    return table(head, rows)


def memory_table(found: list[Plan]) -> str:
    """Memory of a GPU."""
    head = ["stage", "GPUs", "batch", "a GPU's samples", "checkpointing", "weights and state", "activations"]
    rows = [
        [
            plan.stage.name,
            str(plan.stage.gpus),
            f"{plan.batch:,}",
            f"{plan.on_gpu}" + (f" in {plan.micro} micro-batches" if plan.micro > 1 else ""),
            "yes" if plan.stage.checkpointing else "no",
            f"{plan.state_bytes / 1e9:.1f} GB",
            f"{plan.activation_bytes / 1e9:.1f} GB",
            f"{(plan.state_bytes + plan.activation_bytes) / GPU_MEMORY:.0%}",
        ]
        for plan in found
    ]
    return table([*head, "of 80 GB"], rows)


def time_table(found: list[Plan]) -> str:
    """Time and money."""
    head = ["stage", "samples", "useful operations", "efficiency", "a step", "time", "H100-hours", "cost"]
    rows = [
        [
            plan.stage.name,
            f"{plan.samples / 1e9:.2f} G",
            f"{plan.useful_flops * plan.samples:.2e}",
            f"{plan.stage.mfu:.0%}",
            f"{plan.step_seconds:.2f} s",
            duration(plan.hours * 3600),
            f"{plan.gpu_hours:,.0f}",
            f"${plan.gpu_hours * GPU_PRICE:,.0f}",
        ]
        for plan in found
    ]
    hours = sum(plan.gpu_hours for plan in found)
    flops = sum(plan.useful_flops * plan.samples for plan in found)
    total = [
        "all",
        "",
        f"{flops:.2e}",
        "",
        "",
        duration(sum(plan.hours for plan in found) * 3600),
        f"{hours:,.0f}",
    ]
    return table(head, [*rows, [*total, f"${hours * GPU_PRICE:,.0f}"]])


def data_table(found: list[Plan]) -> str:
    """Storage, loaders and network."""
    head = [
        "stage",
        "stored",
        "samples a second",
        "read by all",
        "by a machine",
        "sent by a GPU in a step",
        "rate",
    ]
    rows = [
        [
            plan.stage.name,
            f"{plan.stage.stored * plan.stage.sample_bytes / 1e12:.1f} TB",
            f"{plan.batch / plan.step_seconds:,.0f}",
            f"{plan.read_rate / 1e9:.2f} GB/s",
            f"{plan.read_rate / (plan.stage.gpus / 8) / 1e6:.0f} MB/s",
            f"{plan.network_bytes / 1e9:.2f} GB",
            f"{8 * plan.network_bytes / (plan.step_seconds / 2) / 1e9:.0f} Gbit/s",
        ]
        for plan in found
    ]
    return table(head, rows)


def failure_table(found: list[Plan]) -> str:
    """Failures, checkpoints, and what theory and simulation say of both."""
    head = ["stage", "between failures", "a checkpoint", "pause", "written in", "interval", "failures"]
    rows = []
    for plan in found:
        run, cluster = plan.run(plan.interval), plan.cluster
        outcomes = [simulate(run, cluster, seed) for seed in range(SEEDS)]
        between = cluster.seconds_between_failures
        theory = expected_loss(run, between) + (cluster.detection + cluster.restart) / between
        lost = 1 - sum(one.goodput for one in outcomes) / SEEDS
        rows.append(
            [
                plan.stage.name,
                duration(between),
                f"{plan.checkpoint_bytes / 1e9:.0f} GB",
                f"{run.pause:.2f} s",
                duration(run.write),
                duration(plan.interval),
                f"{sum(one.failures for one in outcomes) / SEEDS:.1f}",
                f"{theory:.2%}",
                f"{lost:.2%}",
            ]
        )
    return table([*head, "lost, theory", "lost, simulation"], rows)


def interval_table(plan: Plan) -> str:
    """Time lost by interval, on the plan's cluster and on one that fails ten times as often, in a run of thirty days."""
    rows = []
    for minutes in (2, 5, 10, 20, 40, 80, 160):
        cells = []
        for factor in (1, 10):
            cluster = replace(plan.cluster, gpu_hours_per_failure=GPU_HOURS_PER_FAILURE / factor)
            run = replace(plan.run(minutes * 60), work=30 * 86_400.0)
            outcomes = [simulate(run, cluster, seed) for seed in range(SEEDS)]
            cells.append(f"{1 - sum(one.goodput for one in outcomes) / SEEDS:.2%}")
        rows.append([f"{minutes} min", *cells])
    return table(["interval", "lost", "lost where GPUs fail ten times as often"], rows)


SLOW = 5.0
AHEAD = (1, 2, 4, 16, 64)


def loader_table(plan: Plan) -> str:
    """Time that GPUs wait for samples, by a machine's bandwidth and what is prepared ahead."""
    machines = plan.stage.gpus // 8
    need = plan.batch * plan.stage.sample_bytes / machines / plan.step_seconds
    rows = []
    for factor in (1.0, 2.0, 4.0, 10.0):
        found = [
            loader_stalls(
                step=plan.step_seconds,
                machines=machines,
                bytes_per_step=plan.batch * plan.stage.sample_bytes,
                bandwidth=factor * need,
                ahead=ahead,
                steps=4000,
                seed=0,
                slow=SLOW,
            )
            for ahead in AHEAD
        ]
        cells = [f"{one.share:.1%}" for one in found]
        rows.append([f"{factor * need / 1e6:.1f} MB/s, {factor:g} x what it reads", *cells])
    return table(["bandwidth of a machine", *(f"{ahead} ahead" for ahead in AHEAD)], rows)


def comparison(found: list[Plan]) -> str:
    """Estimates beside published runs."""
    small, large = sd2_forward(32), sd2_forward(64)
    shares = [rate / gpus * 3 * small / A100_PEAK for gpus, rate in ((8, 1100), (128, 11_600))]
    flops = 3 * 2048 * (550_000 * small + 850_000 * large)
    estimate, reported = flops / (A100_PEAK * UNET_MFU) / 3600, 7.45 * 24 * 128
    rate = 128 * A100_PEAK * UNET_MFU / (3 * small)
    ours = sum(plan.useful_flops * plan.samples / (A100_PEAK * plan.stage.mfu) / 3600 for plan in found)
    theirs = 5208.3 * 8 * 24
    prior = next(plan for plan in found if plan.stage.recipe == "prior")
    laion = prior.useful_flops * 1e9 / (A100_PEAK * TRANSFORMER_MFU) / 3600
    rows = [
        [
            "Stable Diffusion 2 base by MosaicML on 128 A100: 550,000 steps at 256 px, 850,000 at 512 px, batch 2048",
            f"{estimate:,.0f} A100-hours",
            f"{reported:,.0f} (7.45 days)",
            f"{estimate / reported:.2f}",
        ],
        [
            "its throughput at 256 px",
            f"{rate:,.0f} pictures a second",
            "11,600",
            f"{rate / 11_600:.2f}",
        ],
        [
            "DALL·E 2, all stages, as the authors of MicroDiT put it: 5,208 days of 8 A100 (arXiv 2407.15811)",
            f"{ours:,.0f} A100-hours",
            f"{theirs:,.0f}",
            f"{ours / theirs:.2f}",
        ],
        [
            "LAION's prior: 1 billion samples, by the network of this plan",
            f"{laion:,.0f} A100-hours",
            "not published",
            "",
        ],
        ["Karlo: 1 M steps of each network", "", "neither batches nor hours published", ""],
        ["Kandinsky 2.1 and 2.2", "", "neither steps nor hours published", ""],
    ]
    text = table(["run", "estimated", "published", "ratio"], rows)
    return f"""{text}

By our count of Stable Diffusion 2's U-Net ({small / 1e12:.2f} TFLOP a forward pass at 256 px, {large / 1e12:.2f} at 512 px), MosaicML's
throughput was {shares[0]:.0%} of an A100's peak on 8 GPUs and {shares[1]:.0%} on 128, with latents computed beforehand; this plan
takes {UNET_MFU:.0%} for U-Nets. What MicroDiT's authors count for DALL·E 2 is {theirs / ours:.1f} times this plan's; they do not say how they
came to it, and DALL·E 2's own authors published no hours. Expect the truth between the two: a first run at this scale repeats
stages, and reaches its efficiency late."""


def commands(found: list[Plan]) -> str:
    """The commands that would run the plan."""
    texts = []
    for plan in found:
        stage = plan.stage
        settings = {
            "precision": "bf16",
            "parallel.layout": "fsdp",
            "parallel.replicas": plan.replicas,
            **({"parallel.activation_checkpointing": "true"} if stage.checkpointing else {}),
            **({"micro_batch": -(-plan.batch // plan.micro)} if plan.micro > 1 else {}),
            "checkpoint_seconds": round(plan.interval),
            "prefetch": 64,
        }
        clip = " --clip runs/clip" if stage.recipe in ("prior", "decoder") else ""
        lines = [
            f"unclip train {stage.recipe} --recipe dalle2 --data SHARDS --out runs/{stage.recipe}{clip}",
            "    " + " ".join(f"--set {name}={value}" for name, value in settings.items()),
            f"    --launch slurm --nodes {stage.gpus // 8} > {stage.recipe}.sbatch && sbatch {stage.recipe}.sbatch",
        ]
        texts.append(" \\\n".join(f"    {line}" for line in lines))
    return "\n".join(texts)


def page() -> str:
    """docs/scale.md."""
    found = plans()
    largest = max(found, key=lambda plan: plan.read_rate)
    machines = largest.stage.gpus // 8
    return f"""# The plan for full scale

What it takes to train the paper's five stages at full size (recipe `dalle2`) on H100s. None of these runs was made: networks are
counted without memory for their weights, and the cluster is assumed. `python benchmarks/scale_page.py --write` computes every
figure on this page and writes it.

## The networks, counted

{networks_table(found)}

Activations are what autograd saves for the backward pass, under bfloat16 autocast and with fused attention; with checkpointing,
the inputs of blocks and the inside of one. The decoder's parameters include its text transformer.

## Memory of a GPU

{memory_table(found)}

The layout is HSDP: the {SHARDS} GPUs of a machine share a copy (`parallel.replicas` is the number of machines), and only gradients
travel between machines. Weights, gradients, Adam's moments and the average are float32, {STATE} bytes a parameter. CLIP's batch stays
whole, because its loss is over all pairs: so its activations are checkpointed.

## Time and cost

{time_table(found)}

Stages run one after the other. The prior's operations include CLIP's text tower, which reads the captions; those that
checkpointing repeats do not count as useful. Efficiency is assumed: {TRANSFORMER_MFU:.0%} of 989 TFLOP/s for transformers, where Llama 3 reached
38 to 43 % (arXiv 2407.21783), and {UNET_MFU:.0%} for U-Nets, which is what the recipe `artwork_gpu` reached with its decoder on one H200
([training](training.md)); no U-Net of this size was measured. An H100-hour is taken at ${GPU_PRICE:.2f}.

## Storage and network

{data_table(found)}

Pictures are stored at the stage's size. Reading and decoding them is the loaders' work; the prior reads embeddings. The last column
is what a GPU's link to other machines must carry if gradients are to travel within half a step, of the 400 Gbit/s that such
machines have for each GPU.

## Failures and checkpoints

{failure_table(found)}

A GPU fails every {GPU_HOURS_PER_FAILURE:,.0f} hours: 419 unexpected interruptions in 54 days on 16,384 H100s (arXiv 2407.21783). A failure is
noticed after {largest.cluster.detection:.0f} s, and starting again takes {largest.cluster.restart:.0f} s. A checkpoint holds weights, moments and average. Training pauses while they are
copied to the hosts ({HOST_RATE / 1e9:.0f} GB/s from each GPU, and half a second to agree) and goes on while they are written (at most {STORE_RATE / 1e9:.0f} GB/s
in all). The interval is Young's, sqrt(2 x pause x time between failures).

## A simulated run on {largest.stage.gpus} GPUs

`benchmarks/cluster_simulation.py` plays a run event by event, {SEEDS} times; tests compare it with the theory. Time that {largest.stage.name}'s cluster loses
to pauses, undone work and restarts, in a run of thirty days:

{interval_table(largest)}

The loaders of {machines} machines must all have their part before a step begins. A read takes 50 ms and its bytes over the bandwidth, varies by
half, and takes {SLOW:.0f} s more once in a thousand times. Share of the time that GPUs wait, by the number of steps prepared ahead
(`prefetch`):

{loader_table(largest)}

With {machines} reads a step, a slow one comes every {1000 / machines:.0f} steps. Bandwidth does not help against it; preparing ahead by more than
the {SLOW:.0f} s that it takes does, which is {SLOW / largest.step_seconds:.0f} steps here.

## Published runs

{comparison(found)}

## Commands

{commands(found)}

The prior and the decoder need the finished CLIP. [Many processes](howto/many-processes.md) explains the settings.
"""


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="replace docs/scale.md")
    write = parser.parse_args().write
    text = page()
    if write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
