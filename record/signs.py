"""The random signs of the sketch. Whoever reads a run draws them again from its seed; nothing here knows of torch."""

import numpy as np


def draw_signs(size: int, seed: int, group: int) -> np.ndarray:
    """The signs of a group, int8 of shape (size,); anybody can draw them again from the seed in the store."""
    generator = np.random.Generator(np.random.PCG64([seed, group]))
    return (2 * generator.integers(0, 2, size, dtype=np.int8) - 1).astype(np.int8)
