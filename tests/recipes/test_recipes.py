"""Every recipe is a config that can be written down, read and found."""

import json
from dataclasses import replace

import pytest

import unclip
from unclip import recipes
from unclip.config import to_dict
from unclip.stages.sampling import DEFAULTS
from unclip.train.config import read_config

ALL = [(recipe, stage) for recipe, stages in recipes.RECIPES.items() for stage in stages]


@pytest.mark.parametrize(("recipe", "stage"), ALL)
def test_recipes_are_json(recipe, stage):
    config = recipes.get(recipe, stage)
    assert (config.recipe, config.stage) == (recipe, stage)
    assert read_config(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("recipe", ["artwork", "artwork_gpu", "tiny"])
def test_whole_chains(recipe):
    clip, prior, decoder, upsampler = (
        recipes.get(recipe, stage) for stage in ("clip", "prior", "decoder", "upsampler")
    )
    assert clip.model.vision.size == clip.data.size == prior.data.size == decoder.data.size
    assert decoder.model.size == decoder.data.size == upsampler.model.low_size


def test_a_chain_of_two_decoders(tmp_path):
    """The second begins with the first one's weights, and only it is a part of the model."""
    chain = recipes.chain("artwork_gpu", tmp_path, keep_best=True)
    found = chain.stages
    coarse, fine = found["decoder_coarse"][0], found["decoder"][0]
    assert fine.init == str(tmp_path / "decoder_coarse" / "model")
    assert replace(coarse.model.net, patch=fine.model.net.patch) == fine.model.net
    assert set(chain.beside) == {"judge", "decoder_coarse"}
    assert {config.keep for config, _ in found.values()} == {"last"}
    assert sum(share for _, share in found.values()) == pytest.approx(1)


def test_the_bundled_model_is_sampled_as_its_recipe_says():
    assert unclip.load("artwork").defaults == recipes.sampling("artwork")


def test_the_papers_model_is_sampled_as_the_paper_says():
    """Table 3: 64, 250, 27 and 15 steps."""
    sampling = recipes.sampling("dalle2")
    steps = [one.steps for one in (sampling.prior, sampling.decoder, *sampling.upsamplers)]
    assert steps == [64, 250, 27, 15]


def test_a_recipe_that_chose_nothing_is_sampled_as_any_model():
    assert recipes.sampling("tiny") == DEFAULTS


def test_what_there_is_is_named():
    with pytest.raises(ValueError, match="no recipe 'large'; choose from artwork"):
        recipes.get("large", "clip")
    with pytest.raises(ValueError, match="no stage 'painter'; choose from clip, prior, decoder, upsampler"):
        recipes.get("tiny", "painter")
