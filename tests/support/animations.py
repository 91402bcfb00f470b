"""Animations of videos that are not drawn: the labels and movements of every frame."""

import numpy as np

from abaw.data.synth.animation import Animation, animate
from abaw.data.synth.presets import PRESETS
from abaw.data.synth.script import ScriptSampler


def animations(preset: str, videos: int, frames: int) -> list[Animation]:
    statistics = PRESETS[preset].statistics
    rng = np.random.default_rng(0)
    sampler = ScriptSampler(rng, statistics)
    return [animate(sampler.sample(frames), statistics, rng) for _ in range(videos)]
