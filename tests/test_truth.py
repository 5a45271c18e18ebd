"""The processes of `truth.py` hold what is said of them; must-pass 5, 18 and 19 of the list in docs/validation.md."""

import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

from thermodl.analyze import series
from thermodl.analyze.truth import DoubleWell, Process, angular_step, decoupled_dissipation, simulate

import truth


def test_05_decoupled_decay_has_an_fdr1_of_its_own() -> None:
    """⟨θ·g⟩ of the formula, to rounding for the stationary moments and within the errors for a simulation of SGDW."""
    eta, mu, decay, curvature = 0.1, 0.9, 0.3, 0.05
    a = 1 - eta * decay
    # (v, θ) ← (μv + λθ + ξ, aθ − η(μv + λθ + ξ))
    step, kick = np.array([[mu, curvature], [-eta * mu, a - eta * curvature]]), np.array([1, -eta])
    moments = solve_discrete_lyapunov(step, np.outer(kick, kick))
    exact = decoupled_dissipation(moments[0, 0], moments[1, 1], eta, mu, decay)
    assert exact == pytest.approx(curvature * moments[1, 1], rel=1e-12)
    # Heavy ball's misses by most of it, and the first order in η·wd still by a tenth.
    heavy_ball = eta * (1 + mu) / 2 * moments[0, 0]
    assert heavy_ball > 1.7 * exact
    assert heavy_ball - decay * (1 - mu) * moments[1, 1] > 1.1 * exact
    process = Process(eta, mu, curvature, decoupled_decay=decay)
    run = simulate(np.random.default_rng(0), process, dimensions=400, steps=4000)
    products = ("parameter_dot_gradient", "velocity_squared", "parameter_squared")
    dissipated, moved, squared = (run[name].values[0] / 400 for name in products)
    gap = dissipated - np.array(
        [decoupled_dissipation(*both, eta, mu, decay) for both in zip(moved, squared, strict=True)]
    )
    for measured, known in ((gap, 0.0), (dissipated, exact)):
        value, error, _ = series.mean_and_error(measured)
        assert abs(value - known) < 3 * error
        assert error < 0.02 * exact


def test_18_first_passage() -> None:
    """The mean time from one minimum of the double well to the other is that of the quadrature, not that of Kramers."""
    learning_rate, temperature, steps = 0.02, 0.06, 40_000
    places = truth.double_well(np.random.default_rng(0), 600, steps, temperature, learning_rate)
    there = places >= 1
    passed = there.any(axis=1)
    # Those still waiting count by the time they waited: the maximum likelihood of an exponential law.
    waited = learning_rate * np.where(passed, there.argmax(axis=1), steps).sum()
    passages = int(passed.sum())
    exact = truth.double_well_first_passage(temperature)
    measured = waited / passages
    error = measured / np.sqrt(passages)
    assert passages > 500
    assert exact == pytest.approx(325.3, rel=0.001)
    assert abs(measured - exact) < 3 * error
    kramers = 2 * np.pi / np.sqrt(2) * np.exp(0.25 / temperature)
    assert abs(measured - kramers) > abs(measured - exact)
    assert kramers / exact == pytest.approx(0.88, abs=0.01)


def test_the_quadrature_of_the_double_well_is_exact() -> None:
    """At small η it is Boltzmann's; R(1) = η and R(2) = η(1 − η⟨U″⟩); the naive simulation has its moments."""
    slow = DoubleWell(0.005, 2 * 0.25 / 0.005)
    boltzmann = np.exp(-(slow.x**4 / 4 - slow.x**2 / 2) / 0.25)
    boltzmann /= boltzmann.sum()
    assert slow.density @ slow.x**2 == pytest.approx(boltzmann @ slow.x**2, rel=0.01)
    well = DoubleWell(0.1, 3.0)
    stiffness = float(well.density @ (3 * well.x**2 - 1))
    np.testing.assert_allclose(well.response(2), [0.1, 0.1 * (1 - 0.1 * stiffness)], rtol=1e-9)
    assert well.density @ well.force == pytest.approx(0, abs=1e-12)
    assert well.density @ (well.x * well.force) == pytest.approx(
        0.05 * (well.force_squared + well.noise), rel=1e-9
    )  # FDR1
    places = truth.double_well(np.random.default_rng(1), 4000, 1500, well.temperature, 0.1)[:, 500:]
    exact = well.correlation(200)
    for lag in (0, 20, 200):
        products = (places[:, : places.shape[1] - lag] * places[:, lag:]).mean(axis=1, dtype=float)
        assert abs(products.mean() - exact[lag]) < 3 * products.std() / np.sqrt(len(products)), lag


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_19_angular_step(momentum: float) -> None:
    """√(2η·wd/(1+μ)) each step, and the radial balance wd⟨w²⟩ = (η/2)(1+μ)⟨v²⟩, of a scale-invariant layer."""
    eta, decay = 0.1, 0.01
    squared, moved, angle = truth.scale_invariant_layer(np.random.default_rng(0), 32, 128, 4000, eta, momentum, decay)
    exact = angular_step(eta, momentum, decay)
    if momentum:
        assert exact == pytest.approx(0.03244, abs=1e-5)
    steps = np.sqrt((angle**2).mean(axis=1))
    # A chord is shorter than its arc by angle²/24, and a step that leaves the sphere turns less.
    assert abs(steps.mean() - exact) < 3 * steps.std() / np.sqrt(len(steps)) + exact**3
    balance = decay * squared.mean(axis=1) - eta / 2 * (1 + momentum) * moved.mean(axis=1)
    assert abs(balance.mean()) < 3 * balance.std() / np.sqrt(len(balance))
    assert balance.std() < 0.01 * decay * squared.mean()
    wrong = np.sqrt(2 * eta * decay)
    assert momentum == 0 or abs(steps.mean() - wrong) > 100 * steps.std() / np.sqrt(len(steps))
