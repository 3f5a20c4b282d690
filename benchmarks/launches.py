"""What one call of each network of Karlo's form would launch on a GPU, here and in diffusers, counted without one.

    python benchmarks/launches.py [--batch 1] [--detail]

The networks run at full size on fake tensors of a CUDA device, which have a shape, a type and a layout but no memory, so it
takes any machine, a minute or two, and a C++ compiler where torch was built without CUDA. Every operation that is no view
counts as one launch and moves its inputs and outputs through memory. A convolution's bias counts as a pass of its own, as
torch adds it after cuDNN's convolution; attention as one launch, and what torch has to make of its mask before that as
three, or two where its rows are not aligned. How long launches take is not known here: `benchmarks/gpu.py` measures.

Guided networks take each picture twice. The decoder's and the prior's context is read beforehand here, once a picture.
"""

# diffusers brings its names in lazily, which no type checker follows; and its networks are not typed.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false

import argparse
import collections
import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gpu_karlo
import torch
import torch.cuda.amp.common
import torch.utils.cpp_extension
from gpu_karlo import karlo_model
from karlo_folder import SIZES, build, classes, configs
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

import unclip.stages.conditioner as conditioner
from unclip.diffusion.guidance import join_conditions
from unclip.networks.clip import TextEncoding
from unclip.stages.prior import prior_condition
from unclip.stages.text import Captions

SIZE, CUDA, HALF = SIZES["full"], torch.device("cuda"), torch.bfloat16
VIEWS = frozenset(
    [
        "view",
        "_unsafe_view",
        "permute",
        "transpose",
        "expand",
        "slice",
        "select",
        "split",
        "chunk",
        "unbind",
        "unsqueeze",
        "squeeze",
        "detach",
        "t",
        "alias",
        "as_strided",
        "split_with_sizes",
        "_reshape_alias",
        "lift_fresh",
        "empty",
        "empty_strided",
        "empty_like",
        "new_empty",
        "device",
    ]
)
GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace c10::impl {
struct NoCuda final : public NoOpDeviceGuardImpl<DeviceType::CUDA> {};
C10_REGISTER_GUARD_IMPL(CUDA, NoCuda)
}
"""


class Counter(TorchDispatchMode):
    """Counts operations, and the bytes that they read and write."""

    def __init__(self):
        super().__init__()
        self.launches: collections.Counter[str] = collections.Counter()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if name not in VIEWS:
            self.launches[name] += 1
            self.bytes += _bytes((args, kwargs, answer))
        if name == "convolution" and args[2] is not None:
            self.launches["bias of a convolution"] += 1
            self.bytes += 2 * _bytes(answer)
        return answer

    def attention(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, *_: Any, **__: Any) -> Tensor:
        """In place of torch's, which would be taken apart for want of a GPU."""
        kind = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else q.dtype
        q, k, v = (one.to(kind) for one in (q, k, v))
        self.launches["attention"] += 1
        self.bytes += _bytes((q, k, v, q))
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            self.launches["mask"] += 3
        if attn_mask is not None and (
            k.shape[2] % 8 if attn_mask.dtype == torch.bool else any(n % 8 for n in attn_mask.stride()[:-1])
        ):
            self.launches["mask"] += 2
        made = torch.empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3], dtype=kind, device=q.device)
        return made.transpose(1, 2)


def _bytes(values: Any) -> int:
    tensors = [one for one in _pytree.tree_leaves(values) if isinstance(one, Tensor)]
    return sum(one.numel() * one.element_size() for one in tensors)


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Tensors made within are fake, on whatever device they are said to be."""
    if not torch.backends.cuda.is_built():
        torch.utils.cpp_extension.load_inline("no_cuda", GUARD, is_python_module=False)
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *given, **named: True
    # Modules swap the memory of their weights when they are moved, which fake ones have none of.
    nn.Module._apply = _apply
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        yield


def _apply(self: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    for module in self.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                module._parameters[name] = nn.Parameter(change(weight.detach()), weight.requires_grad)
        for name, weight in list(module._buffers.items()):
            module._buffers[name] = None if weight is None else change(weight)
    return self


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor that nobody reads."""
    return torch.empty(shape, dtype=dtype, device=CUDA)


def ours(batch: int) -> Iterator[tuple[str, contextlib.AbstractContextManager[Any], Callable[[], object]]]:
    """For each network its name, the context in which it is lent, and a call."""
    parts = karlo_model(SIZE, CUDA, HALF).parts
    width, text = SIZE.embedding, parts.config("clip").text
    mask = torch.ones(batch, text.context, dtype=torch.bool, device=CUDA)
    encoding = TextEncoding(empty(batch, width), empty(batch, text.context, width), mask)
    captions = Captions(mask.long(), encoding)
    nothing = Captions(captions.tokens[:1], TextEncoding(*(field[:1] for field in encoding)))
    label = empty(2 * batch)
    with parts.lend("decoder", nn.Module) as decoder:
        condition = conditioner.Condition(z_i=empty(batch, width), captions=captions, empty=nothing)
        both = join_conditions(*conditioner.UnclipConditioner(decoder)(condition, guided=True))  # pyright: ignore[reportArgumentType]
        noisy = empty(2 * batch, 3, SIZE.small, SIZE.small)
    yield "decoder", parts.lend("decoder", nn.Module), lambda: decoder(noisy, label, both)
    with parts.lend("upsampler", nn.Module) as lent:
        upsampler: Any = lent
        low = upsampler.condition(empty(batch, 3, SIZE.small, SIZE.small))
        large = empty(batch, 3, SIZE.large, SIZE.large)
    yield "upsampler", parts.lend("upsampler", nn.Module), lambda: upsampler(large, label[:batch], low)
    with parts.lend("prior", nn.Module) as prior:
        config: Any = prior.config
        # The keys and values of the caption's tokens, read beforehand.
        shape = (batch, config.heads, 2 * (text.context + 1), config.width // config.heads)
        memory = tuple(empty(*shape, dtype=HALF) for _ in range(config.layers))
        given = dataclasses.replace(prior_condition(captions), memory=memory)
        pair, embedding = join_conditions(given, given), empty(2 * batch, width)
    yield "prior", parts.lend("prior", nn.Module), lambda: prior(embedding, label, pair)


def theirs(batch: int) -> Iterator[tuple[str, contextlib.AbstractContextManager[Any], Callable[[], object]]]:
    """The same of diffusers' networks, in bfloat16."""
    import diffusers

    diffusers.logging.set_verbosity_error()

    def network(name: str) -> Any:
        with CUDA:
            return build(classes()[name], configs(SIZE)[name]).to(HALF).eval().requires_grad_(False)

    def half(*shape: int) -> Tensor:
        return empty(*shape, dtype=HALF)

    both, context = 2 * batch, configs(SIZE)["prior"]["num_embeddings"]
    times = torch.ones(both, dtype=torch.long, device=CUDA)
    mask = torch.ones(both, context + 4, dtype=torch.bool, device=CUDA)
    decoder, upsampler, prior = (network(name) for name in ("decoder", "super_res_first", "prior"))
    yield (
        "decoder",
        contextlib.nullcontext(),
        lambda: decoder(
            sample=half(both, 3, SIZE.small, SIZE.small),
            timestep=times,
            encoder_hidden_states=half(both, context + 4, SIZE.context_width),
            class_labels=half(both, 4 * SIZE.decoder_channels),
            attention_mask=mask,
        ),
    )
    large = half(batch, 6, SIZE.large, SIZE.large)
    yield "upsampler", contextlib.nullcontext(), lambda: upsampler(sample=large, timestep=times[:batch])
    yield (
        "prior",
        contextlib.nullcontext(),
        lambda: prior(
            half(both, SIZE.embedding),
            timestep=times,
            proj_embedding=half(both, SIZE.embedding),
            encoder_hidden_states=half(both, context, SIZE.embedding),
            attention_mask=mask[:, :context],
        ),
    )


def main() -> None:
    """Print a table, and with --detail what the launches are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=1, help="pictures (default: 1)")
    parser.add_argument("--detail", action="store_true", help="also print the operations")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    gpu_karlo.random_weight = lambda name, shape, device: torch.empty(shape, device=device)
    attention = nn.functional.scaled_dot_product_attention
    print("| network | by | launches | GB read and written |\n|---|---|---|---|")
    with fake_cuda():
        for library, networks in (("unclip", ours), ("diffusers", theirs)):
            for name, lent, call in networks(arguments.batch):
                counter = Counter()
                nn.functional.scaled_dot_product_attention = counter.attention
                with lent, counter:
                    call()
                nn.functional.scaled_dot_product_attention = attention
                launches = sum(counter.launches.values())
                print(f"| {name} | {library} | {launches:,} | {counter.bytes / 1e9:.2f} |", flush=True)
                if arguments.detail:
                    print(dict(counter.launches.most_common()), file=sys.stderr)


if __name__ == "__main__":
    main()
