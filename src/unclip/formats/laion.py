"""LAION's prior: lucidrains' `DiffusionPrior` (https://github.com/lucidrains/DALLE2-pytorch), a `.pth` and a JSON file.

Two layouts are public: that of version 1.9 and later, and an earlier one without vectors for a dropped caption, whose
dot-product attention, relative bias included, is multiplied by 128 ("PB relax", CogView).
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unclip.checkpoints.keymap import Form, Table, absent, row, with_leading, within
from unclip.config import shown
from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError
from unclip.formats.folder import licence_of, read_json
from unclip.formats.key_maps.options import Options, Reference, only
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.formats.weights import open_weights
from unclip.networks.prior_laion import LaionPriorConfig
from unclip.stages.sampling import PriorSampling, Sampling

CONFIG = "prior_config.json"
RELAX = 128.0

# Since version 1.9 it was trained with dropped captions; the package's own sampling guides only on request.
DEFAULTS = Sampling(prior=PriorSampling(steps=64, sampler="ddpm", guidance=1.0, candidates=2))

_RELAXED = Form(lambda parts: parts[0] * RELAX, lambda ours: [ours / RELAX])
_ATTENTION = [
    row("norm.weight", "norm.g"),
    row("q.weight", "to_q.weight"),
    row("kv.weight", "to_kv.weight"),
    row("null_kv", "null_kv"),
    row("out.weight", "to_out.0.weight"),
    row("norm_out.weight", "to_out.1.g"),
]
_MLP = [
    row("norm.weight", "0.g"),
    row("up.weight", "1.weight"),
    row("norm_inside.weight", "3.g"),
    row("down.weight", "5.weight"),
]
# Noise table, CLIP and rotary frequencies come from elsewhere. The vector that replaced the noisy embedding in a share of
# the training samples is not used in sampling.
_IGNORED = (r"noise_scheduler\..*", r"clip\..*", r".*\.rotary_emb\.freqs", r"net\.null_image_embed")


def is_early(keys: Collection[str]) -> bool:
    """Whether weights have the layout before version 1.9."""
    return "net.null_text_embed" in keys


def table(config: LaionPriorConfig) -> Table:
    """Rows of both layouts, which differ in how a dropped caption is represented."""
    early = config.null == "empty"
    rows = [
        row("text_in.{p}", "to_text_embeds.0.{p}"),
        row("image_in.{p}", "to_image_embeds.0.{p}"),
        row("label.weight", "to_time_embeds.0.weight"),
        row("label.linear_1.{p}", "to_time_embeds.0.1.net.0.0.{p}"),
        row("label.linear_2.{p}", "to_time_embeds.0.1.net.1.0.{p}"),
        row("label.linear_3.{p}", "to_time_embeds.0.1.net.2.{p}"),
        row("query", "learned_query"),
        row("null_states", "null_text_embed" if early else "null_text_encodings", form=with_leading(1)),
        row("null_text", "null_text_embeds", form=with_leading(1)),
        row("transformer.norm_in.weight", "causal_transformer.init_norm.g"),
        row("transformer.norm_out.norm.weight", "causal_transformer.norm.g"),
        row("transformer.project_out.weight", "causal_transformer.project_out.weight"),
        *within("transformer.attentions.{n}.", "causal_transformer.layers.{n}.0.", _ATTENTION),
        *within("transformer.mlps.{n}.", "causal_transformer.layers.{n}.1.", _MLP),
    ]
    bias = "net.causal_transformer.rel_pos_bias.relative_attention_bias.weight"
    return Table(
        [
            *within("", "net.", rows),
            row("transformer.bias.buckets.weight", bias, form=_RELAXED)
            if early
            else row("transformer.bias.buckets.weight", bias),
            row("embedding_mean", form=absent(0.0)),
            row("embedding_std", form=absent(config.embedding**-0.5)),
        ],
        _IGNORED,
    )


PRIOR = Reference(
    name="DiffusionPrior",
    honoured=frozenset(
        {"net", "clip", "image_embed_dim", "timesteps", "sample_timesteps", "condition_on_text_encodings"}
    ),
    fixed={
        "predict_x_start": only(True),
        "predict_v": only(False),
        "beta_schedule": only("cosine"),
        "sampling_clamp_l2norm": only(False),
        "sampling_final_clamp_l2norm": only(False),
        "init_image_embed_l2norm": only(False),
        "image_embed_scale": only(None),
    },
    # For training, and for the CLIP that is taken from elsewhere.
    inert=frozenset({"image_size", "image_channels", "loss_type", "training_clamp_l2norm"})
    | {"cond_drop_prob", "text_cond_drop_prob", "image_cond_drop_prob", "clip_adapter_overrides"},
)
NET = Reference(
    name="DiffusionPriorNetwork",
    honoured=frozenset({"dim", "depth", "dim_head", "heads", "ff_mult", "max_text_len", "num_timesteps"})
    | {"num_time_embeds", "num_image_embeds", "num_text_embeds"}
    | {"norm_in", "norm_out", "final_proj", "normformer", "rotary_emb"},
    # The second is of versions before 1.0.
    fixed={"self_cond": only(False), "l2norm_output": only(False)},
    inert=frozenset({"attn_dropout", "ff_dropout"}),
)


def _prior_of(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Config of the prior within that of its whole training, or alone. Raises `ModelError` for anything else."""
    found = data.get("prior", data)
    if not isinstance(found, Mapping):
        raise ModelError(f"{where} is damaged: prior is {shown(found)}, expected an object")
    return found


def space_name(data: Mapping[str, Any], where: str) -> str:
    """Name of the embedding space, from the CLIP that the JSON names; "" if it names none."""
    clip = Options(_prior_of(data, where), where).take("clip", dict, {})
    makers = {"openai": "OpenAI CLIP", "open_clip": "OpenCLIP"}
    make, model = str(clip.get("make")), clip.get("model")
    return f"{makers[make]} {model}" if make in makers and model else ""


def defaults(data: Mapping[str, Any], where: str) -> Sampling:
    """Defaults with the number of steps that the config names."""
    options = Options(_prior_of(data, where), where)
    assert DEFAULTS.prior.steps is not None
    steps = options.take("sample_timesteps", int, DEFAULTS.prior.steps)
    if steps > options.take("timesteps", int, 1000):
        raise ModelError(f"{where}: sample_timesteps is {steps}, more than its timesteps")
    return replace(DEFAULTS, prior=replace(DEFAULTS.prior, steps=steps))


def read_config(data: Mapping[str, Any], keys: Collection[str], where: str) -> LaionPriorConfig:
    """Config from the JSON beside the weights, of the prior or of its whole training, and from the weights' names.

    Raises `ModelError` for options that are not supported: predictions of noise or velocity, self-conditioning, other
    schedules, and estimates that sampling normalises.
    """
    prior = Options(_prior_of(data, where), where)
    prior.check(PRIOR)
    net = Options(prior.take("net", dict), f"{where}, net")
    net.check(NET)
    embedding, early = net.take("dim", int), is_early(keys)
    prior.equal("image_embed_dim", prior.take("image_embed_dim", int, embedding), embedding, "the net's dim")
    labels = net.data.get("num_timesteps")
    return LaionPriorConfig(
        embedding=embedding,
        context=net.take("max_text_len", int, 256),
        layers=net.take("depth", int),
        heads=net.take("heads", int, 8),
        head_channels=net.take("dim_head", int, 64),
        mlp_ratio=net.take("ff_mult", float, 4.0),
        cosine=not early,
        rotary=net.take("rotary_emb", bool, True),
        norm_in=net.take("norm_in", bool, False),
        norm_out=net.take("norm_out", bool, True),
        norm_inside=net.take("normformer", bool, False),
        project_out=net.take("final_proj", bool, True),
        states=prior.take("condition_on_text_encodings", bool, True),
        text_tokens=net.take("num_text_embeds", int, 1),
        label_tokens=net.take("num_time_embeds", int, 1),
        image_tokens=net.take("num_image_embeds", int, 1),
        labels=None if labels is None else net.take("num_timesteps", int),
        null="empty" if early else "learned",
        process=ProcessConfig(
            parametrization="x0", schedule="cosine", steps=prior.take("timesteps", int, 1000)
        ),
    )


def open_folder(folder: Path, reader: Reader = FOLDER) -> PublicModel:
    """The prior of a repository, or of its folder `prior`; without CLIP or tokenizer.

    The layout of pickled weights is known only to a reader that unpickles them.
    """
    home = next(home for home in (folder, folder / "prior") if (home / CONFIG).is_file())
    data, file = read_json(home / CONFIG), find_weights(home)
    if reader.unpickle is not None:
        (file,) = reader.safe([file])
    keys: list[str] = []
    if file.suffix == ".safetensors":
        with open_weights({"": (file,)}) as readers:
            keys = list(readers)
    config = read_config(data, keys, str(folder))
    part = PublicPart(kind="prior_laion", config=config, table=table(config), files={"": (file,)})
    return PublicModel(
        format="laion",
        folder=folder,
        licence=licence_of(folder),
        parts={"prior": part},
        tokenizer=None,
        defaults=defaults(data, str(folder)),
        space=space_name(data, str(folder)),
    )


def find_weights(home: Path) -> Path:
    """Weight file in a folder that may hold several: latest, else best, else the only one. Raises `ModelError` if unclear."""
    found = sorted(file for file in home.iterdir() if file.suffix in (".safetensors", ".pth", ".pt"))
    for stem in ("latest", "best"):
        for file in found:
            if file.stem == stem:
                return file
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ModelError(f"{home} should hold one file of weights beside {CONFIG}, it has {names}")
    return found[0]
