"""Fixtures shared by all tests; importable without torch, so that analyses can be tested where there is none."""

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# How fast a machine makes examples says nothing about the code.
settings.register_profile("any machine", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("any machine")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)
