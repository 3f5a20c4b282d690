"""The fast setting: fewer steps where none are given, nothing else."""

import pytest

from unclip.stages.sampling import DEFAULTS, sampling


def counts(settings) -> tuple:
    return settings.prior.steps, settings.decoder.steps, settings.upsamplers[0].steps


def test_it_only_takes_away():
    fast = DEFAULTS.faster()
    assert all(few < many for few, many in zip(counts(fast), counts(DEFAULTS)))
    assert fast.faster() == fast
    few = sampling(prior_steps=1, steps=2, upsampler_steps=1).over(DEFAULTS)
    assert counts(few.faster()) == (1, 2, 1)
    interval = sampling(guidance_interval=(1.0, 2.0)).over(DEFAULTS)
    assert interval.faster().decoder.guidance_interval == (1.0, 2.0)


@pytest.mark.parametrize(("own", "steps"), [(100, 10), (50, 10), (49, 6), (25, 6), (3, 3)])
def test_models_of_many_steps_keep_more(own, steps):
    fast = sampling(steps=own, sampler="plms").over(DEFAULTS).faster()
    assert (fast.decoder.steps, fast.decoder.sampler) == (steps, "dpmpp_2m")


def test_what_is_given_counts():
    settings = sampling(fast=True, steps=11, sampler=None).over(DEFAULTS)
    assert (settings.decoder.steps, settings.decoder.sampler) == (11, "dpmpp_2m")
    assert settings.upsamplers[0].steps == DEFAULTS.faster().upsamplers[0].steps
    assert settings.fast is None
    assert sampling(fast=False).over(DEFAULTS) == sampling(fast=None).over(DEFAULTS) == DEFAULTS


def test_a_picture_records_what_it_was_drawn_with(tiny_model):
    taken = []
    given = {"upsampler_steps": 1, "on_progress": lambda event: taken.append(event.stage)}
    (slow,) = tiny_model.generate("a red apple", seed=1, steps=9, upsampler_steps=1)
    (fast,) = tiny_model.generate("a red apple", seed=1, fast=True, **given)
    recorded = fast.provenance["request"]["sampling"]
    # The model's own three steps are fewer than six.
    assert taken.count("decoder") == recorded["decoder"]["steps"] == 3
    assert recorded["decoder"]["guidance_interval"] == [1.0, 20.0]
    assert "fast" not in recorded
    assert "guidance_interval" not in slow.provenance["request"]["sampling"]["decoder"]
    again = tiny_model.redo(fast.provenance)
    assert again.image.tobytes() == fast.image.tobytes()
    assert again.provenance == fast.provenance
