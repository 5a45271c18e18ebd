"""`thermodl validate` and its closed forms; must-pass 4, 5, 6 and 9 of the list in docs/validation.md."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from thermodl import cli, validate
from thermodl.analyze import AnalysisSettings, truth
from thermodl.analyze.physics import stationarity, temperature
from thermodl.analyze.settings import NotDefinedError

DOCS = Path(__file__).parents[1] / "docs" / "validation.md"


def response(process: truth.Process, length: int = 4000) -> np.ndarray:
    """θ at τ = 1…length after a unit kick −1 to the gradient of step 0: the recursion written out."""
    x, v, out = 0.0, 0.0, []
    for step in range(length):
        g = process.curvature * x - (step == 0)
        v = process.momentum * v + g
        x -= process.learning_rate * (g + process.momentum * v if process.nesterov else v)
        out.append(x)
    return np.array(out)


def test_05_fdr1_is_not_defined_for_decoupled_decay_nor_nesterov() -> None:
    """Heavy-ball FDR1 is off for SGDW by far more than its error: it is refused, with the reason."""
    settings = AnalysisSettings(segment="0:4000", windows=2)
    decoupled = truth.Process(0.1, 0.9, decoupled_decay=0.3)
    run = truth.simulate(np.random.default_rng(0), decoupled, dimensions=4, steps=4000)
    taken_for_heavy_ball = run.assign_attrs(optimizer={"class": "SGD", "nesterov": False})
    results = stationarity.estimate(taken_for_heavy_ball, settings).sel(group="all").compute()
    for name in ("fdr1_raw", "fdr1_centred"):
        assert abs(results[name] - 1) > 10 * results[f"{name}_stderr"], name
        assert abs(results[name] - 1) > 0.02, name
    for optimizer in ({"class": "SGDW", "nesterov": False}, {"class": "SGD", "nesterov": True}):
        with pytest.raises(NotDefinedError, match="FDR1 in this form is that of heavy ball"):
            stationarity.estimate(run.assign_attrs(optimizer=optimizer), settings)


def test_06_nesterov_variance_and_temperature() -> None:
    """Σ = η²CΣψ², and T(ω) = −sin ω S(ω)/(2 Im R(ω)), both from the response; no kinetic temperature is given."""
    process = truth.Process(0.2, 0.9, nesterov=True)
    psi = response(process)
    assert np.sum(psi**2) == pytest.approx(truth.nesterov_variance(0.2, 0.9), rel=1e-10)
    frequency = np.array([0.01, 0.3, 1.0, 2.5])
    transform = np.exp(-1j * np.outer(frequency, np.arange(1, len(psi) + 1))) @ psi
    measured = -np.sin(frequency) * np.abs(transform) ** 2 / (2 * transform.imag)
    np.testing.assert_allclose(measured, truth.nesterov_temperature(frequency, 0.2, 0.9), rtol=1e-8)
    run = truth.simulate(np.random.default_rng(0), process, dimensions=4, steps=200)
    results = temperature.estimate(run, AnalysisSettings(segment="0:200", windows=2))
    assert "temperature_kinetic" not in results
    assert "not-defined" in {verdict["code"] for verdict in results.attrs["verdicts"]}


def test_04_identity_with_cauchy_gradients() -> None:
    """The telescoping identity closes for any gradients, at 1e-12 of O_R."""
    rng, steps, eta, mu = np.random.default_rng(0), 500, 0.1, 0.9
    run = truth.simulate(rng, truth.Process(eta, mu), dimensions=1, steps=steps)
    x, v, g = np.zeros(steps), np.zeros(steps), rng.standard_cauchy(steps)
    for step in range(steps - 1):
        v[step + 1] = mu * v[step] + g[step]
        x[step + 1] = x[step] - eta * v[step + 1]
    products = {"parameter_squared": x * x, "gradient_squared": g * g, "velocity_squared": v * v,
                "parameter_dot_gradient": x * g, "parameter_dot_velocity": x * v,
                "velocity_dot_gradient": v * g}  # fmt: skip
    run = run.assign({name: (("layer", "step"), values[None]) for name, values in products.items()})
    assert float(stationarity.identity(run)[0].max()) < 1e-12


def test_09_epochs_agree() -> None:
    """Variance and plateau of the displacement under epoch noise, through the analyses."""
    rows = [row for name in ("epoch", "free-epoch") for row in validate.measure(validate.systems()[name], 1)]
    assert all(row.agrees for row in rows), [row for row in rows if not row.agrees]


def test_shuffled_epochs_are_seen_by_neither_relation() -> None:
    """Both hold as for white noise; the configurational temperature is λΣ of the epochs, and says why."""
    settings = AnalysisSettings(segment="0:6400", windows=2)
    run = truth.simulate(np.random.default_rng(3), truth.Process(0.4, epoch=8), dimensions=64, steps=6400)
    results = stationarity.estimate(run, settings).compute().sel(group="all")
    for name in ("fdr1_centred", "fdr2"):
        assert abs(float(results[name]) - 1) < 3 * float(results[f"{name}_stderr"])
    assert {("fdr1_centred", "holds"), ("fdr2", "blind")} <= verdicts_of(results)
    found = temperature.estimate(run, settings).compute()
    assert ("temperature_configurational", "coloured") in verdicts_of(found)
    value, error = (float(found[f"temperature_configurational{part}"].sel(group="all")) for part in ("", "_stderr"))
    sigma = truth.epoch_variance(0.4, 8)
    # θ·ξ from stationarity of θ²; the last term holds it once, with λ = 1
    colour = (0.2 * (sigma + 1) - sigma) / (1 - 0.4)
    assert abs(value - (sigma - 0.2 * (sigma + colour))) < 3 * error
    assert value < 0.9 * float(found["temperature_noise"].sel(group="all"))


def verdicts_of(results: xr.Dataset) -> set[tuple[str, str]]:
    """Quantity and code of each verdict."""
    return {(verdict["quantity"], verdict["code"]) for verdict in results.attrs["verdicts"]}


@pytest.mark.parametrize("without", ["probe", "curvature"])
def test_the_second_relation_needs_probes_and_curvatures(without: str) -> None:
    """Without either it is absent, and nothing else is."""
    run = truth.simulate(np.random.default_rng(3), truth.Process(0.2), dimensions=4, steps=200)
    results = stationarity.estimate(run.drop_dims(without), AnalysisSettings(segment="0:200", windows=2))
    assert "fdr2" not in results
    assert "fdr1_centred" in results


def test_a_wrong_answer_fails_and_names_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and the row marked, in both languages."""
    system = validate.System(
        ("<b>", "<b>"), truth.Process(0.2, 0.9), [validate.Check("temperature", "temperature_noise", 2.0)]
    )
    monkeypatch.setattr(validate, "systems", lambda: {"wrong": system})
    with pytest.raises(SystemExit) as stop:
        cli.main(["validate", "--html", str(tmp_path / "t.html"), "--language", "zh"])
    assert stop.value.code == 1
    assert "不一致" in capsys.readouterr().out
    page = (tmp_path / "t.html").read_text("utf-8")
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    with pytest.raises(SystemExit) as stop:
        cli.main(["validate", "--only", "nothing"])
    assert stop.value.code == 2


@pytest.mark.slow
def test_the_page_has_the_rows_of_the_command() -> None:
    """All agree, and docs/validation.md shows each of them."""
    rows = [row for system in validate.systems().values() for row in validate.measure(system, 0)]
    assert all(row.agrees for row in rows), [row for row in rows if not row.agrees]
    shown = [re.split(r" \| ", line)[:2] for line in DOCS.read_text("utf-8").splitlines() if line.endswith("agrees |")]
    assert [[part.removeprefix("| ") for part in line] for line in shown] == [validate.cells(r, "en")[:2] for r in rows]


def test_must_pass_tests_exist() -> None:
    """Every number of the list names tests that are there and bear it."""
    listed = re.findall(r"^\| (\d+) \| .* \| `([\w./]+)::(\w+)` \|$", DOCS.read_text("utf-8"), re.MULTILINE)
    assert [int(number) for number, _, _ in listed] == sorted(int(number) for number, _, _ in listed)
    assert {int(number) for number, _, _ in listed} == set(range(1, 21))
    for number, file, name in listed:
        assert name.startswith(f"test_{number:0>2}_"), name
        assert f"def {name}(" in (DOCS.parents[1] / file).read_text("utf-8"), name
