"""Bigger than memory: extraction and the full sweep with one block's weights in memory at a time.

All prompts, and all candidates of the sweep, go through a block together before the next one is read.
"""

from refusal.layerwise.loading import Layered, load_layered
from refusal.layerwise.scores import mean_difference, remembered, select_direction, sweep

__all__ = ["Layered", "load_layered", "mean_difference", "remembered", "select_direction", "sweep"]
