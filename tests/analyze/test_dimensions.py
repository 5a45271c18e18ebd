"""Dimensions of squares and of what sketches see, against processes whose dimension is known."""

import numpy as np
import pytest

from thermodl.analyze.dimensions import dimensions_of_pairs, dimensions_of_squares, effective_dimension


def test_dimensions_of_squares() -> None:
    """χ² of d; nothing that moves: 1; what never changes: as many as there may be."""
    rng = np.random.default_rng(19)
    for d in (1, 4, 50):
        squares = np.sum(rng.standard_normal((d, 20_000)) ** 2, axis=0)
        assert dimensions_of_squares(squares, 100) == pytest.approx(d, rel=0.1)
    assert dimensions_of_squares(np.zeros(50), 16) == 1
    assert dimensions_of_squares(np.full(50, 2.0), 16) == 16
    assert dimensions_of_squares(rng.standard_cauchy(500) ** 2, 16) == 1


def test_dimensions_of_pairs() -> None:
    """χ² of d whatever its size, which a trend of three decades changes; what does not differ or is not there: ∞."""
    rng = np.random.default_rng(20)
    for d in (1, 4, 50):
        first, second = np.geomspace(1, 1e3, 20_000) * np.sum(rng.standard_normal((2, d, 20_000)) ** 2, axis=1)
        assert dimensions_of_pairs(first, second) == pytest.approx(d, rel=0.1)
    for nothing in (np.zeros(5), np.ones(5), np.full(5, np.nan), np.empty(0)):
        assert dimensions_of_pairs(nothing, nothing) == np.inf


@pytest.mark.parametrize("true_dimension", [3, 40])
def test_effective_dimension_sees_through_the_sketch(true_dimension: int) -> None:
    """d_eff of directions spread over 5,000 parameters, folded to 256 numbers, is that of the directions."""
    rng = np.random.default_rng(8)
    signs = rng.choice([-1.0, 1.0], 5120)
    directions = rng.standard_normal((true_dimension, 5120))
    increments = rng.standard_normal((400, true_dimension)) @ directions
    folded = (increments * signs).reshape(400, 20, 256).sum(1)
    found = effective_dimension(folded, [256], [False])
    assert found == pytest.approx(true_dimension, rel=0.25)


@pytest.mark.parametrize(("samples", "coordinates"), [(15, 64), (31, 300)])
def test_effective_dimension_of_few_samples_about_their_mean(samples: int, coordinates: int) -> None:
    """Centring makes samples share −C/n, which uncorrected would look like 47 of 64 and 227 of 300 directions."""
    rng, inverse = np.random.default_rng(9), []
    for _ in range(400):
        increments = rng.standard_normal((samples, coordinates))
        centred = increments - increments.mean(0)
        inverse.append(1 / effective_dimension(centred, [coordinates], [True]))
    assert 1 / np.mean(inverse) == pytest.approx(coordinates, rel=0.08)
