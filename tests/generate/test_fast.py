"""The fast setting: fewer steps where none are given, nothing else."""

import numpy as np

from unclip.generate.settings import Settings


def test_it_only_takes_away():
    default = Settings()
    fast = default.faster()
    for name in ("prior_steps", "steps", "upsampler_steps"):
        assert getattr(fast, name) < getattr(default, name)
    assert fast.faster() == fast
    few = Settings(prior_steps=1, steps=2, upsampler_steps=1)
    assert (few.faster().prior_steps, few.faster().steps, few.faster().upsampler_steps) == (1, 2, 1)
    assert Settings(guidance_interval=(1.0, 2.0)).faster().guidance_interval == (1.0, 2.0)


def test_what_is_given_counts():
    settings = Settings().with_given(fast=True, steps=11, sampler=None)
    assert (settings.steps, settings.sampler) == (11, "dpmpp_2m")
    assert settings.upsampler_steps == Settings().faster().upsampler_steps
    assert Settings().with_given(fast=False) == Settings().with_given(fast=None) == Settings()


def test_a_picture_tells_what_it_was_drawn_with(tiny_system):
    taken = []
    given = {"upsampler_steps": 1, "callback": lambda event: taken.append(event.stage)}
    (slow,) = tiny_system.generate("a red apple", seed=1, steps=9, upsampler_steps=1)
    (fast,) = tiny_system.generate("a red apple", seed=1, fast=True, **given)
    assert taken.count("decoder") == fast.recipe["steps"] == 3  # the model's own three are fewer than six
    assert fast.recipe["guidance_interval"] == [1.0, 20.0]
    assert slow.recipe["guidance_interval"] is None
    again = tiny_system.redo(fast.recipe)
    assert np.array_equal(np.asarray(again.image), np.asarray(fast.image))
