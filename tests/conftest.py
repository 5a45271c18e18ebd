"""Fixtures shared by all tests; importable without torch, so that analyses can be tested where there is none."""

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)
