"""The recorder: it measures exactly what happened, and does not disturb it."""

import copy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from thermodl.analyze.quantities import is_sgd  # noqa: E402
from thermodl.record import Recorder, RecorderSettings, open_run  # noqa: E402
from thermodl.record.absent import reasons  # noqa: E402
from thermodl.record.check import check_recording  # noqa: E402
from thermodl.record.errors import RunError  # noqa: E402
from thermodl.record.models import cnn  # noqa: E402
from thermodl.record.signs import draw_signs  # noqa: E402
from thermodl.record.store import read_attributes  # noqa: E402

STEPS = 200


def batches(seed: int, shape: tuple[int, ...], classes: int = 10, size: int = 16):
    """Endless random batches from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(size, *shape, generator=generator), torch.randint(classes, (size,), generator=generator)


def normalized_net() -> nn.Module:
    """BatchNorm and dropout: buffers and a random stream that a careless probe would touch."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 10)
    )


def train(model: nn.Module, shape: tuple[int, ...], folder: Path | None, settings: RecorderSettings) -> None:
    """The same loop with and without a recorder."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    data, others = batches(1, shape), batches(2, shape)

    def probe() -> torch.Tensor:
        x, y = next(others)
        return F.cross_entropy(model(x), y)

    torch.manual_seed(3)
    recorder = Recorder(model, optimizer, folder, probe=probe, settings=settings) if folder else None
    for _ in range(STEPS):
        x, y = next(data)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if recorder:
            recorder.log(loss=loss)
    if recorder:
        recorder.close()


@pytest.mark.parametrize(
    ("make", "shape"),
    [(lambda: cnn((1, 28, 28), 10), (1, 28, 28)), (normalized_net, (1, 8, 8))],
    ids=["cnn", "batchnorm"],
)
def test_20_recording_does_not_disturb(make, shape: tuple[int, ...], tmp_path: Path) -> None:
    """After 200 steps weights and buffers are bit for bit the same, with a probe at every step."""
    torch.manual_seed(0)
    plain = make()
    watched = copy.deepcopy(plain)
    train(plain, shape, None, RecorderSettings())
    train(watched, shape, tmp_path / "run", RecorderSettings(probe_every=1, snapshot_every=10))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert open_run(tmp_path / "run").sizes["probe"] == STEPS


@pytest.mark.filterwarnings("ignore:the probe gave the same gradient twice")
def test_every_number_is_what_happened(tmp_path: Path) -> None:
    """All inner products, sketches, probes and snapshots against the definitions, written out."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)).double()
    eta, mu, nu, decay = 0.1, 0.8, 0.25, 0.01
    optimizer = torch.optim.SGD(model.parameters(), lr=eta, momentum=mu, dampening=nu, weight_decay=decay)
    generator = torch.Generator().manual_seed(1)
    other = torch.randn(4, 7, generator=generator, dtype=torch.float64)

    def flat(tensors) -> np.ndarray:
        return np.concatenate([t.detach().reshape(-1).numpy().copy() for t in tensors])

    start = flat(model.parameters())
    settings = RecorderSettings(probe_every=2, sketch_size=4, snapshot_every=3, moments_window=4)
    rows = []
    with Recorder(
        model, optimizer, tmp_path / "run", probe=lambda: model(other).square().sum(), settings=settings
    ) as recorder:
        for _ in range(10):
            loss = model(torch.randn(4, 7, generator=generator, dtype=torch.float64)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            theta, raw = flat(model.parameters()), flat(p.grad for p in model.parameters())
            states = [optimizer.state[p].get("momentum_buffer") for p in model.parameters()]
            velocity = np.zeros_like(theta) if states[0] is None else flat(states)
            probed = flat(torch.autograd.grad(model(other).square().sum(), list(model.parameters())))
            optimizer.step()
            recorder.log(loss=loss, mine=2.5)
            rows.append((theta, raw + decay * theta, velocity, probed + decay * theta))
    theta, g, v, probed = (np.array(column) for column in zip(*rows, strict=True))
    moved = theta - start
    run = open_run(tmp_path / "run").compute()
    expected = {
        "gradient_squared": g * g,
        "parameter_dot_gradient": theta * g,
        "parameter_squared": theta * theta,
        "displacement_squared": moved * moved,
        "displacement_dot_gradient": moved * g,
        "velocity_squared": v * v,
        "velocity_dot_gradient": v * g,
        "parameter_dot_velocity": theta * v,
    }
    edges = np.cumsum([0, *run["layer_size"].values])
    for name, products in expected.items():
        exact = np.add.reduceat(products, edges[:-1], axis=1).T
        np.testing.assert_allclose(run[name].values, exact, rtol=1e-12, atol=1e-15, err_msg=name)
    for name, values in (("parameter_sketch", moved), ("gradient_sketch", g)):
        np.testing.assert_allclose(run[name].values, sketch_slowly(run, values), rtol=1e-12, atol=1e-14, err_msg=name)
    at = run["probe_step"].values
    np.testing.assert_array_equal(at, np.arange(0, 10, 2))
    noise = np.add.reduceat((g - probed)[at] ** 2 / 2, edges[:-1], axis=1).T
    np.testing.assert_allclose(run["noise_trace"].values, noise, rtol=1e-12)
    np.testing.assert_allclose(run["gradient_dot"].values, np.add.reduceat((g * probed)[at], edges[:-1], axis=1).T)
    np.testing.assert_allclose(run["probe_sketch"].values, sketch_slowly(run, probed[at]), rtol=1e-12, atol=1e-14)
    sizes = [
        sum(layer["size"] for layer in run.attrs["layers"] if layer["group"] == name) for name in run.attrs["groups"]
    ]
    assert run.attrs["sketch_relative_error"] == [0.5**0.5 if size > 4 else 0.0 for size in sizes]
    np.testing.assert_array_equal(run["parameters"].values.T, theta[[0, 3, 6, 9]])
    np.testing.assert_array_equal(run["window_start"], [0, 4, 8])
    np.testing.assert_array_equal(run["window_stop"], [4, 8, 10])
    for name, values in (("gradient_mean", g), ("gradient_second_moment", g * g)):
        means = [part.mean(0) for part in np.split(values, [4, 8])]
        np.testing.assert_allclose(run[name].values.T, means, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(run["final_parameters"].values, flat(model.parameters()))
    np.testing.assert_array_equal(run["mine"].values, 2.5)
    assert run["sgd_time"].values[4] == pytest.approx(4 * eta * (1 - nu) / (1 - mu))


def sketch_slowly(run, values: np.ndarray) -> np.ndarray:
    """(Px)_c = Σ_{j ≡ c mod k} s_j x_j of each group, from the stored seed alone."""
    out = np.zeros((run.sizes["group"], run.sizes["sketch"], len(values)))
    place = 0
    for index, group in enumerate(run["group"].values):
        size = int(run["layer_size"].values[run["layer_group"].values == group].sum())
        signs = draw_signs(size, run.attrs["recorder"]["sketch_seed"], index)
        for j in range(size):
            out[index, j % run.sizes["sketch"]] += signs[j] * values[:, place + j]
        place += size
    return out


def step_with(optimizer_of, folder: Path, steps: int = 5, **settings: int):
    """A few steps of a small model; the opened run."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    optimizer = optimizer_of(model)
    with Recorder(model, optimizer, folder, settings=RecorderSettings.model_validate(settings)) as recorder:
        for step in range(steps):
            loss = model(torch.full((3, 6), float(step + 1))).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.log(loss=loss)
    return open_run(folder)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RMSprop", "Adagrad"])
def test_other_optimizers_leave_out_what_is_not_defined(name: str, tmp_path: Path) -> None:
    """The velocity and SGD time are absent and named, units unsaid; the generic channels are there and finite."""
    run = step_with(lambda m: getattr(torch.optim, name)(m.parameters(), lr=1e-2), tmp_path / "run")
    for array in ("velocity_squared", "sgd_time"):
        assert array not in run
        assert name in run.attrs["not_recorded"][array]
    assert "units" not in run["learning_rate"].attrs
    assert run.attrs["optimizer"]["learning_rate"] == 1e-2
    assert all(not check.defects for check in check_recording(tmp_path / "run")[1])
    assert np.isfinite(run["update_squared"].values).all()
    assert np.isfinite(run["gradient_squared"].values).all()


class SGD(torch.optim.Optimizer):
    """Of somebody's own, with the name of torch's."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1, "weight_decay": None})

    @torch.no_grad()
    def step(self):
        for parameter in self.param_groups[0]["params"]:
            parameter -= 0.1 * parameter.grad.sign()


class Named(torch.optim.SGD):
    """Torch's by another name."""


def test_an_optimizer_is_known_by_its_step_and_not_by_its_name(tmp_path: Path) -> None:
    """A namesake has no SGD time, a class that only inherits has; the certificate takes both for what they are."""
    own = step_with(lambda m: SGD(m.parameters()), tmp_path / "own")
    assert "sgd_time" not in own
    assert not is_sgd(own)
    named = step_with(lambda m: Named(m.parameters(), lr=0.1), tmp_path / "named")
    np.testing.assert_allclose(named["sgd_time"], 0.1 * np.arange(named.sizes["step"]))
    assert is_sgd(named)
    for name in ("own", "named"):
        assert not [check.defects for check in check_recording(tmp_path / name)[1] if check.defects]


def test_an_early_recording_of_adam_goes_on_with_what_it_called_sgd_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed, it has no gap, and no array that is there is said to be missing."""
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def train(recorder: Recorder) -> None:
        for _ in range(12):
            optimizer.zero_grad()
            model(torch.ones(3, 6)).square().mean().backward()
            optimizer.step()
        recorder.flush()

    with monkeypatch.context() as early:
        early.setattr(
            "thermodl.record.recorder.reasons",
            lambda *given, **named: {k: v for k, v in reasons(*given, **named).items() if k != "sgd_time"},
        )
        recorder = Recorder(model, optimizer, tmp_path / "run")
        train(recorder)
        state = recorder.state_dict()
        recorder.close()
    with Recorder(model, optimizer, tmp_path / "run", resume=state) as recorder:
        train(recorder)
    run = open_run(tmp_path / "run")
    np.testing.assert_allclose(run["sgd_time"], 0.01 * np.arange(24))
    assert "sgd_time" not in run.attrs["not_recorded"]
    assert not [check.defects for check in check_recording(tmp_path / "run")[1] if check.defects]


def test_momentum_free_velocity_is_the_last_gradient(tmp_path: Path) -> None:
    """At μ = 0 the velocity before a step is the gradient of the step before."""
    run = step_with(lambda m: torch.optim.SGD(m.parameters(), lr=0.1), tmp_path / "run")
    v, g = run["velocity_squared"].values, run["gradient_squared"].values
    assert np.all(v[:, 0] == 0)
    # The velocity is read back from float32 parameters, whose rounding shows beside small updates.
    np.testing.assert_allclose(v[:, 1:], g[:, :-1], rtol=1e-4)


def test_maximize_and_groups(tmp_path: Path) -> None:
    """Under `maximize` the descended gradient is −p.grad; parameter groups keep their own learning rates."""

    def two_rates(model: nn.Sequential) -> torch.optim.Optimizer:
        parts = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.01}]
        return torch.optim.SGD(parts, momentum=0.0, maximize=True)

    run = step_with(two_rates, tmp_path / "run")
    np.testing.assert_allclose(run["learning_rate"].values[:, 0], [0.1, 0.01])
    assert run["layer_optimizer_group"].values.tolist() == [0, 0, 1, 1]
    # Δθ = −ηg of the descended gradient, so ‖θ+Δθ‖² − ‖θ‖² = −2ηθ·g + η²‖g‖²
    rates = np.array([0.1, 0.1, 0.01, 0.01])[:, None]
    np.testing.assert_allclose(run["update_squared"].values, rates**2 * run["gradient_squared"].values, rtol=1e-4)
    gained = np.diff(run["parameter_squared"].values)
    expected = rates**2 * run["gradient_squared"].values - 2 * rates * run["parameter_dot_gradient"].values
    np.testing.assert_allclose(gained, expected[:, :-1], rtol=1e-3, atol=1e-6)


def test_frozen_tied_and_absent_gradients(tmp_path: Path) -> None:
    """Frozen parameters are left out, tied ones counted once, missing gradients count as zero."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"used": nn.Linear(3, 3), "unused": nn.Linear(3, 3), "frozen": nn.Linear(3, 3)})
    model["tied"] = model["used"]
    model["frozen"].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with Recorder(model, optimizer, tmp_path / "run") as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            model["used"](torch.ones(2, 3)).sum().backward()
            optimizer.step()
            recorder.log(loss=float("nan"))
    run = open_run(tmp_path / "run")
    assert run["layer"].values.tolist() == ["used.weight", "used.bias", "unused.weight", "unused.bias"]
    assert np.all(run["gradient_squared"].sel(layer="unused.weight") == 0)
    assert np.all(run["update_squared"].sel(layer="unused.weight") == 0)
    assert np.isnan(run["loss"]).all()


def test_the_store_may_vanish_but_the_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning that says how much is safe; the loop ends as if nothing had been."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = Recorder(model, optimizer, tmp_path / "run")

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()

    step()
    recorder.flush()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder._writer, "append", full)
    step()
    with pytest.warns(RuntimeWarning, match=r"No space left.*Steps safe on disk: 1 of 2"):
        recorder.flush()
    step()
    recorder.log(loss=1.0)
    recorder.close()
    assert open_run(tmp_path / "run").sizes["step"] == 1


def test_an_existing_recording_is_never_overwritten_unasked(tmp_path: Path) -> None:
    """A second recorder on the folder refuses and leaves every byte; with `overwrite` it replaces."""
    step_with(lambda m: torch.optim.SGD(m.parameters(), lr=0.1), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RunError, match="holds a recording already"):
        Recorder(model, optimizer, tmp_path / "run")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    Recorder(model, optimizer, tmp_path / "run", overwrite=True).close()
    assert open_run(tmp_path / "run").sizes["step"] == 0


def test_states(tmp_path: Path) -> None:
    """An exception marks the run as failed, Ctrl-C as stopped; both keep what was recorded."""
    for kind, state in ((ValueError, "failed"), (KeyboardInterrupt, "stopped")):
        folder = tmp_path / state
        model = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        recorder = Recorder(model, optimizer, folder)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        with pytest.raises(kind), recorder:
            raise kind
        assert read_attributes(folder)["state"] == state
        assert open_run(folder).sizes["step"] == 1


def test_names_that_log_refuses(tmp_path: Path) -> None:
    """What the recorder measures itself, what means something else, and what is no name; a NaN in integers is −1."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, tmp_path / "run") as recorder:
        with pytest.warns(RuntimeWarning, match=r"ignored: it belongs after optimizer\.step"):
            recorder.log(loss=1.0)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        recorder.log(mine=1.0, epoch=float("nan"), one=torch.ones(1))
        recorder.log_evaluation(its=2.0)
        for name in ("learning_rate", "../x", "train_loss", "noise_trace", "its", "group", "parameter", "zarr.json"):
            with pytest.raises(ValueError, match="cannot log"):
                recorder.log(**{name: 1.0})
        for name in ("loss", "mine", "snapshot", "evaluation_step", "layer_size"):
            with pytest.raises(ValueError, match="cannot log"):
                recorder.log_evaluation(**{name: 1.0})
    run = open_run(tmp_path / "run")
    assert (run["mine"].values.tolist(), run["its"].values.tolist()) == ([1.0], [2.0])
    assert (run["epoch"].values.tolist(), run["one"].values.tolist()) == ([-1], [1.0])


def test_evaluations_may_differ_in_what_they_know(tmp_path: Path) -> None:
    """What one evaluation lacks is NaN, and no reason to stop."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, tmp_path / "run") as recorder:
        recorder.log_evaluation(train_loss=1.0)
        recorder.log_evaluation(test_loss=2.0, test_accuracy=0.5)
    run = open_run(tmp_path / "run")
    np.testing.assert_array_equal(run["train_loss"], [1.0, np.nan])
    np.testing.assert_array_equal(run["test_loss"], [np.nan, 2.0])


def test_torch_and_compiled_sums_agree() -> None:
    """The path for other devices against the compiled one, on the CPU: with and without gradient and velocity."""
    from thermodl.record import observables

    generator = torch.Generator().manual_seed(0)
    sizes, groups, offsets = (700, 300, 5, 600), (0, 0, 1, 2), (0, 700, 0, 0)
    starts = np.cumsum((0, *sizes))[:-1]
    layout = np.array(list(zip(starts, sizes, groups, offsets, strict=True)))
    reference, previous = torch.randn(2, sum(sizes), generator=generator)
    signs = torch.from_numpy(draw_signs(sum(sizes), 0, 0))
    tensors = [torch.randn(3, size, generator=generator) for size in sizes]
    now = [
        observables.Now(p, None if i == 1 else g, -1.0, 0.1, v if i % 2 else None, -2.0)
        for i, (p, g, v) in enumerate(tensors)
    ]
    others = [None if i == 2 else torch.randn(size, generator=generator) for i, size in enumerate(sizes)]
    results = []
    for measure in (observables.measure, observables.measure_on_device):
        products = torch.full((len(observables.PRODUCTS), len(sizes)), torch.nan, dtype=torch.float64)
        sketches = torch.full((len(observables.SKETCHES), 3, 64), torch.nan, dtype=torch.float64)
        moved = previous.clone()
        measure(now, layout, reference, moved, signs, products, sketches)
        results.append((products, sketches, moved))
    for measure in (observables.measure_probe, observables.measure_probe_on_device):
        products = torch.full((len(observables.PROBE_PRODUCTS), len(sizes)), torch.nan, dtype=torch.float64)
        folded = torch.full((3, 64), torch.nan, dtype=torch.float64)
        measure(now, others, layout, reference, signs, products, folded)
        results.append((products, folded))
    for one, other in (*zip(*results[:2], strict=True), *zip(*results[2:], strict=True)):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11, equal_nan=True)
    # Layers without a velocity have left their parameters behind, the others nothing.
    for index, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        left = previous[start : start + size] if index % 2 else tensors[index][0]
        assert torch.equal(results[0][2][start : start + size], left)


def test_a_block_called_all_is_a_group_of_another_name(tmp_path: Path) -> None:
    """Analyses call all layers together so."""
    model = nn.Sequential()
    model.add_module("all", nn.Linear(2, 2))
    model.add_module("head", nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, tmp_path / "run"):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    run = open_run(tmp_path / "run")
    assert run["group"].values.tolist() == ["model.all", "head"]
    assert run["layer"].values.tolist()[0] == "all.weight"


@pytest.mark.parametrize("name", ["probe", "samples", "sample_loss"])
def test_what_is_no_function_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """And not at the first step, with a warning, when the recording is lost already."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RunError, match=f"{name} is int; expected a function"):
        Recorder(model, optimizer, tmp_path / "run", **{name: 3})
    assert not (tmp_path / "run").exists()


def test_a_sampling_that_no_analysis_knows_is_named(tmp_path: Path) -> None:
    """A slip of the pen would be taken for unknown, without a word."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(RuntimeWarning, match="sampling is 'shuffled'; analyses know 'shuffle' and 'replacement'"):
        Recorder(model, optimizer, tmp_path / "run", attributes={"sampling": "shuffled"}).close()
