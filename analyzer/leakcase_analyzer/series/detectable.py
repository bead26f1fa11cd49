"""The least steady growth that a window would have shown: the figure beside every "stable".

The window's own noise is taken apart from its growth, a steady rate is laid under it, and the
rule's thresholds are asked. The noise is the floor's, block by block, less the straight line
between its ends; laid at every circular shift, upright, upside down and backwards it gives some
forty windows that could as well have been, of the same roughness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leakcase_analyzer.series.floor import Floor, last_third, spread_error
from leakcase_analyzer.series.persistence import CALLED_FROM, STEADY_RATIO, most_top_share
from leakcase_analyzer.series.samples import Floats

CHANCE = 0.9
# Rates tried: from a quarter of the least growth per window upwards.
RATE_STEP = 1.1
RATES_TRIED = 120
# A line through both ends takes a part of the noise with it, and ten or so increments tell its
# size no better than this (found by simulation: see the accuracy benchmark).
UNDERRATED = 1.25
# Where in its block a sawtooth is lowest varies, and moves a leak's growth from one block to the
# next (simulation again).
SAWTOOTH_FACTOR = 1.6


def least_detectable_rate(floor: Floor) -> float | None:
    """Per second: the least rate from which on such a window is called a leak's with 90 % chance.

    None when no rate would be: the noise hides it all.
    """
    blocks = len(floor.increments)
    lowest = 0.25 * floor.least_growth / blocks
    per_block = lowest * RATE_STEP ** np.arange(RATES_TRIED)
    noise = _noises(np.array(floor.increments)) * UNDERRATED
    chance = _called(per_block[:, None, None] + noise, floor).mean(axis=1)
    enough = np.minimum.accumulate((chance >= CHANCE)[::-1])[::-1]
    if not enough.any():
        return None
    rate = float(per_block[int(np.argmax(enough))]) / floor.block_seconds
    return SAWTOOTH_FACTOR * rate if floor.big_drops >= 3 else rate


def _noises(g: Floats) -> Floats:
    """Increments of the floor's deviations from its line, in all arrangements: (many, K - 1)."""
    deviation = np.concatenate(([0.0], np.cumsum(g - g.mean())))
    shifted = np.stack([np.roll(deviation, k) for k in range(deviation.size)])
    both = np.concatenate((shifted, shifted[:, ::-1]))
    return np.diff(np.concatenate((both, -both)), axis=1)


def _called(g: Floats, floor: Floor) -> NDArray[np.bool_]:
    """The rule's steps c to g on many rows of increments at once."""
    blocks = g.shape[-1]
    growth = g.sum(axis=-1)
    q3, z = last_third(g)
    even = (q3 >= STEADY_RATIO) & (g.max(axis=-1) <= most_top_share(blocks) * growth)
    # Under a leak a sawtooth may come out in as few as four blocks: three quarters of the window.
    seen = 0.75 * (blocks + 1) / blocks if floor.big_drops >= 3 else 1.0
    error = np.hypot(spread_error(g, floor.block_seconds), floor.end_error)
    grows = seen * growth >= CALLED_FROM * floor.least_growth
    grows &= growth / blocks / floor.block_seconds > error
    slows = (z <= -1) & (q3 < 0.9)
    called: NDArray[np.bool_] = grows & even & ~slows
    return called
