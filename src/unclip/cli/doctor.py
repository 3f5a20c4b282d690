"""`unclip doctor`: versions, hardware, speed and integrity of the bundled models, for bug reports."""

import argparse
import os
import platform
import time
from typing import Any

from unclip.cli import console, options

PACKAGES = ("unclip", "torch", "numpy", "pillow", "safetensors", "tokenizers", "einops", "jaxtyping")


def add(verbs) -> None:
    parser = options.verb(
        verbs, "doctor", "show versions, hardware, speed and the state of the bundled models"
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    report = examine()
    if arguments.json:
        console.result_json(report)
    else:
        for section, facts in report.items():
            console.result(section)
            for name, value in facts.items():
                console.result(f"  {name:<22} {value}")
    damaged = [name for name, state in report["models"].items() if state != "ok"]
    if damaged:
        raise OSError(
            f"the bundled model {damaged[0]!r} is {report['models'][damaged[0]]}; reinstall the package"
        )


def examine() -> dict[str, dict[str, Any]]:
    """The report, by section; takes about two seconds, mostly for measuring speeds."""
    return {"versions": versions(), "machine": machine(), "speed": speeds(), "models": models()}


def versions() -> dict[str, str]:
    """The installed version of Python and of every package that pictures depend on."""
    from importlib.metadata import version

    import torch

    # torch's own word for itself names its build too, such as +cpu; the package's does not always.
    found = {name: version(name) for name in PACKAGES} | {"torch": torch.__version__}
    return {"python": platform.python_version(), **found}


def machine() -> dict[str, Any]:
    """Cores, memory, devices, and the number formats that the processor multiplies fast."""
    import torch

    from unclip.generate.placement import physical_memory

    capabilities = torch.cpu.get_capabilities()
    fast = ("avx2", "avx512_f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "bf16", "sve")
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "processor": capabilities.get("cpu_name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "fast formats": " ".join(name for name in fast if capabilities.get(name)) or "none known",
    }
    if memory := physical_memory():
        facts["memory"] = f"{memory / 2**30:.1f} GiB"
        if "SC_AVPHYS_PAGES" in os.sysconf_names:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            facts["memory free"] = f"{free / 2**30:.1f} GiB"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    facts["mps"] = "yes" if torch.backends.mps.is_available() else "no"
    return facts


def speeds() -> dict[str, str]:
    """Measured rates of a 1024 x 1024 matrix product on the CPU by number format, and the choice of `precision=auto`."""
    import torch

    from unclip.nn.precision import WORTHWHILE, speedup

    rates = {
        str(dtype).removeprefix("torch."): _rate(dtype, 0.5) for dtype in (torch.float32, torch.bfloat16)
    }
    return rates | {"precision auto": "bf16" if speedup() > WORTHWHILE else "fp32"}


def _rate(dtype: Any, seconds: float) -> str:
    import torch

    size = 1024
    left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    torch.mm(left, right)  # the first product also sets up the library
    products, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        torch.mm(left, right)
        products += 1
    return f"{2 * size**3 * products / elapsed / 1e9:.0f} GFLOP/s"


def models() -> dict[str, str]:
    """Each bundled model's state: `ok`, or what is wrong with its files."""
    from unclip.checkpoints.hub import bundled
    from unclip.checkpoints.manifest import verify

    states = {}
    for name, folder in bundled().items():
        try:
            verify(folder)
            states[name] = "ok"
        except (OSError, ValueError) as error:
            states[name] = str(error)
    return states
