"""Inner products and sketches on a schedule: what is there is what a recording of every step has, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import truth

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from record.quadratic import record_quadratic  # noqa: E402
from thermodl.analyze import AnalysisSettings, analyze, open_results, physics  # noqa: E402
from thermodl.analyze.check import _certificate, check_run  # noqa: E402
from thermodl.analyze.segments import matching_windows, split_windows, stretches  # noqa: E402
from thermodl.analyze.settings import AnalysisError  # noqa: E402
from thermodl.record import Recorder, RecorderSettings, open_run  # noqa: E402
from thermodl.record.budget import Budget  # noqa: E402
from thermodl.record.errors import RunError  # noqa: E402
from thermodl.record.observables import PRODUCTS, SKETCHES  # noqa: E402
from thermodl.record.plan import make_plan  # noqa: E402
from thermodl.record.schedule import Schedule, compile_schedule  # noqa: E402
from thermodl.record.settings import make_settings  # noqa: E402

STEPS = 60
OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "plain": lambda m: torch.optim.SGD(m.parameters(), lr=0.1),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01),
}
SCHEDULES: list[Schedule] = ["burst:4/11", [0, 3, 7, 8, 29, 58], "log:5"]


def train(
    folder: Path | None,
    make: Callable[[nn.Module], torch.optim.Optimizer],
    products_every: Schedule,
    *,
    steps: int = STEPS,
    change: Callable[[int, torch.optim.Optimizer], None] | None = None,
    failing: tuple[int, ...] = (),
    overflowing: tuple[int, ...] | None = None,
    **settings: object,
) -> nn.Module:
    """A small network on random data, with all channels.

    The tries of `failing` steps fail once, and are made again. With `overflowing` a GradScaler makes the steps, and
    skips those tries.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer, data, others = make(model), torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)

    def loss(generator: torch.Generator) -> torch.Tensor:
        x = torch.randn(8, 6, generator=generator)
        return F.cross_entropy(model(x), torch.randint(3, (8,), generator=generator))

    cadence = {"probe_every": 3, "curvature_every": 5, "snapshot_every": 7, "moments_window": 6, "sketch_size": 16}
    chosen = RecorderSettings.model_validate(cadence | {"products_every": products_every} | settings)
    recorder = Recorder(model, optimizer, folder, probe=lambda: loss(others), settings=chosen) if folder else None
    left = list(failing)

    def fail(*_: object) -> None:
        if recorder and recorder.step in left:
            left.remove(recorder.step)
            raise ArithmeticError

    # Registered after the recorder, it breaks off steps that were measured.
    optimizer.register_step_pre_hook(fail)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6) if overflowing else None
    for step in range(steps):
        if change:
            change(step, optimizer)
        value = loss(data)
        optimizer.zero_grad()
        if scaler:
            (scaler.scale(value) * (torch.inf if step in (overflowing or ()) else 1)).backward()
            scaler.step(optimizer)
            scaler.update()
            if recorder:
                recorder.log(loss=value)
            continue
        value.backward()
        try:
            optimizer.step()
        except ArithmeticError:
            optimizer.step()
        if recorder:
            recorder.log(loss=value)
    if recorder:
        recorder.close()
        assert not recorder.lost
    return model


def assert_rows_of(every: Path, some: Path, schedule: Schedule) -> None:
    """Due rows are bit for bit those of the recording of every step, others NaN; all else is the same."""
    a, b = open_run(every).load(), open_run(some).load()
    assert set(a.data_vars) == set(b.data_vars)
    due = np.array([compile_schedule(schedule)(step) for step in range(a.sizes["step"])])
    for name in set(a.data_vars) - {"wall_time"}:
        expected = a[name].where(xr.DataArray(due, dims="step")) if name in (*PRODUCTS, *SKETCHES) else a[name]
        np.testing.assert_array_equal(b[name].values, expected.values.astype(b[name].dtype), err_msg=str(name))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.filterwarnings("ignore:curvature_every")
def test_due_rows_are_those_of_every_step(name: str, tmp_path: Path) -> None:
    """Whatever the optimizer keeps, whenever flushes come; the training is not disturbed."""
    plain = train(None, OPTIMIZERS[name], 1)
    train(tmp_path / "every", OPTIMIZERS[name], 1)
    for index, schedule in enumerate(SCHEDULES):
        folder = tmp_path / str(index)
        watched = train(folder, OPTIMIZERS[name], schedule, flush_seconds=1e-3 if index else 5.0)
        for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
            assert torch.equal(a, b)
        assert_rows_of(tmp_path / "every", folder, schedule)
        assert not any(one.defects for one in check_run(folder)[1])


def test_also_where_momentum_comes_and_goes_and_steps_fail(tmp_path: Path) -> None:
    """Without momentum θ of the step before tells the velocity, of the step after the update: both are kept in gaps."""

    def change(step: int, optimizer: torch.optim.Optimizer) -> None:
        optimizer.param_groups[0].update(momentum=0.9 if 17 <= step < 32 else 0.0, lr=0.1 / (1 + step))

    schedule = "burst:4/11"
    for failing in ((), (2, 4, 10, 11, 16, 26, 32, 33, 37)):
        for name, every in (("every", 1), ("some", schedule)):
            train(tmp_path / f"{name}{len(failing)}", OPTIMIZERS["plain"], every, change=change, failing=failing)
        assert_rows_of(tmp_path / f"every{len(failing)}", tmp_path / f"some{len(failing)}", schedule)


@pytest.mark.parametrize("name", ["momentum", "plain"])
def test_also_where_a_scaler_skips_steps(name: str, tmp_path: Path) -> None:
    """Skipped tries lie before, within and behind bursts, and are counted at the step that is made."""
    skipped = (0, 3, 12, 13, 20, 28)
    for folder, every in (("every", 1), ("some", "burst:4/11")):
        train(tmp_path / folder, OPTIMIZERS[name], every, overflowing=skipped, curvature_every=0)
        run = open_run(tmp_path / folder)
        assert run.sizes["step"] == STEPS - len(skipped)
        assert float(run["skipped"].sum()) == len(skipped)
        assert not any(one.defects for one in check_run(tmp_path / folder)[1])
    assert_rows_of(tmp_path / "every", tmp_path / "some", "burst:4/11")


def test_a_flipped_row_is_found_within_its_burst(tmp_path: Path) -> None:
    """The certificate says what it rests on; one wrong number in the middle of a burst is named by its step."""
    train(tmp_path / "run", OPTIMIZERS["momentum"], "burst:10/25", steps=100)
    replay = {one.name: one for one in check_run(tmp_path / "run")[1]}["replay"]
    # Of ten rows nine updates, and the velocity of the first is not known; the optimizer's first is 0.
    assert replay.done
    assert replay.found.startswith(f"{2 * (4 * 8 + 1)} updates of groups obey")
    assert "within 4 stretches of consecutive steps" in replay.found
    certificate = _certificate(*check_run(tmp_path / "run"))
    assert certificate.startswith("certificate: 40 of 100 steps, in 4 stretches, are the optimizer's trajectory")
    array = zarr.open_array(tmp_path / "run" / "run.zarr" / "parameter_sketch", mode="r+")
    array[1, 0, 55] += 1e-3
    defects = {one.name: one.defects for one in check_run(tmp_path / "run")[1]}
    assert defects["replay"]
    assert all(defect.startswith(("step 54", "step 55", "step 56")) for defect in defects["replay"])
    # A number that is missing where it was due is not taken for a gap.
    array[1, 0, 56] = np.nan
    assert any(
        "parameter_sketch" in text for text in {o.name: o.defects for o in check_run(tmp_path / "run")[1]}["finite"]
    )


def test_nothing_due_is_a_channel_switched_off(tmp_path: Path) -> None:
    """Clocks, losses and probes are there; analyses and the certificate give the reason for the rest."""
    train(tmp_path / "run", OPTIMIZERS["momentum"], 0, steps=80)
    run = open_run(tmp_path / "run")
    assert not {*PRODUCTS, *SKETCHES} & set(run.data_vars)
    assert bool(np.isfinite(run["loss"]).all())
    assert bool(np.isfinite(run["noise_trace"]).all())
    assert not any(one.defects for one in check_run(tmp_path / "run")[1])
    errors = analyze(tmp_path / "run")
    assert all(isinstance(error, AnalysisError) and "products_every is 0" in str(error) for error in errors.values())
    # The loss of every step is there all the same.
    assert sorted(errors) == [name for name in physics.names() if name != "events"]


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stationary quadratic, of which 700 steps of every thousand are recorded."""
    folder = tmp_path_factory.mktemp("bursts") / "run"
    settings = RecorderSettings(products_every="burst:700/1000", probe_every=5, snapshot_every=0, sketch_size=64)
    record_quadratic(folder, learning_rate=0.2, momentum=0.9, steps=3600, settings=settings)
    return folder


def test_a_quadratic_in_bursts_has_its_temperature(bursts: Path) -> None:
    """From the last burst that is long enough; curves have points in every burst, and none across a gap."""
    assert analyze(bursts) == {}
    results, ball = open_results(bursts), truth.HeavyBall(0.2, 0.9)
    # Ageing and events look at the whole run: they have no segment.
    for analysis in (found for name, found in results.items() if name not in ("ageing", "events")):
        start, stop = analysis.attrs["segment"]
        assert 3000 <= start < stop == 3600
    temperature = results["temperature"]
    for name in ("temperature_noise", "temperature_kinetic", "temperature_kinetic_drift_free"):
        value, error = (float(temperature[name + suffix].sel(group="all")) for suffix in ("", "_stderr"))
        assert abs(value - ball.temperature) <= 3 * error < 0.3 * ball.temperature
    for analysis, name in (
        ("temperature", "temperature_kinetic"),
        ("dissipation", "gradient_dissipation"),
        ("stationarity", "fdr1_centred"),
    ):
        curve, at = results[analysis][f"{name}_over_time"], results[analysis]["window_step"].values
        assert bool(np.isfinite(curve).all())
        assert set(at // 1000) == {0, 1, 2, 3}
        assert (at % 1000 < 700).all()
    segments = results["stationarity"]
    assert all(
        stop - start // 1000 * 1000 <= 700
        for start, stop in zip(segments.segment_start.values, segments.segment_stop.values, strict=True)
    )
    # The sketch of what was not recorded is no zero.
    two_time = results["diffusion"]["two_time_mean_squared_displacement"].sel(group="all", waiting_time=0).dropna("lag")
    assert (two_time > 0).all()
    # Every waiting time is one from which something was recorded, also for as long as its mean takes.
    two_time = results["diffusion"]["two_time_mean_squared_displacement"].sel(group="all")
    assert (two_time["waiting_time"].values % 1000 < 700).all()
    assert two_time.notnull().any("lag").all()


@pytest.mark.parametrize(
    ("segment", "would_do"), [("600:1400", "1000:1400"), ("100:900", "100:700"), ("720:990", r"1:700|1000:1700")]
)
def test_a_segment_across_a_gap_is_refused(segment: str, would_do: str, bursts: Path) -> None:
    """With the steps that would do."""
    errors = analyze(bursts, ["temperature"], AnalysisSettings(segment=segment), name="gap")
    with pytest.raises(
        AnalysisError, match=rf"segment {segment} holds steps without inner products .*such as ({would_do})$"
    ):
        raise errors["temperature"]
    taken = AnalysisSettings(segment="1100:1300")
    assert analyze(bursts, ["temperature", "stationarity"], taken, name="whole") == {}


def test_bursts_too_short_for_analyses_say_what_to_record(tmp_path: Path) -> None:
    """In one sentence, with the longest there is."""
    train(tmp_path / "run", OPTIMIZERS["momentum"], "burst:8/20", steps=100)
    for error in analyze(tmp_path / "run").values():
        assert "taken at 8 consecutive steps at most (products_every is 'burst:8/20'), at least 64" in str(error)
        assert "burst:500/5000" in str(error)


def test_windows_of_many_bursts(tmp_path: Path) -> None:
    """No more than were asked for, all within bursts, with the probes of the same steps."""
    train(tmp_path / "run", OPTIMIZERS["momentum"], "burst:20/30", steps=600, curvature_every=0)
    run = open_run(tmp_path / "run")
    steps, probes = matching_windows(run, 8)
    assert len(steps) == len(probes) == 8
    for (start, stop), (first, last) in zip(steps, probes, strict=True):
        assert start // 30 == (stop - 1) // 30
        assert (stop - 1) % 30 < 20
        at = run["probe_step"].values[first:last]
        assert ((at >= start - 1) & (at < stop)).all()
    assert len(split_windows(stretches(run), 40)) == 40 // 2


def test_a_budget_and_a_dry_run_know_the_gaps() -> None:
    """Rows without inner products take next to nothing, and what they leave is for the channels."""
    kept = {}
    for schedule in (1, "burst:10/1000"):
        settings = RecorderSettings(products_every=schedule, snapshot_every=100, max_bytes=50_000_000)
        budget = Budget(settings, {"step": 100, "products": 10_000, "snapshot": 1_000_000}, planned_steps=4000)
        kept[schedule] = sum(budget.allows("snapshot", step, 0.0, {}) for step in range(0, 4000, 100))
    assert kept == {1: 8, "burst:10/1000": 40}
    table = {"model": "mlp", "steps": 3000, "batch_size": 4, "device": "cpu"}
    channels = {
        schedule: {
            one.name: one
            for one in make_plan(make_settings(table | {"recorder": {"products_every": schedule}})).channels
        }
        for schedule in (1, "burst:10/1000", 0)
    }
    assert [channels[schedule]["products"].entries for schedule in channels] == [3000, 30, 0]
    assert channels[1]["products"].bytes_per_entry == channels["burst:10/1000"]["products"].bytes_per_entry > 9_000
    assert channels[0]["step"].bytes_per_entry == channels[1]["step"].bytes_per_entry < 200
    assert channels["burst:10/1000"]["products"].seconds_per_entry > 0


def test_a_recording_goes_on_only_with_its_own_schedule(tmp_path: Path) -> None:
    """Rows of two schedules in one array could not be told apart."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def settings(schedule: Schedule) -> RecorderSettings:
        return RecorderSettings(products_every=schedule, probe_every=0)

    with Recorder(model, optimizer, tmp_path, settings=settings("burst:2/4")) as recorder:
        for _ in range(6):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        state = recorder.state_dict()
    with pytest.raises(RunError, match=r"products_every='burst:2/4'.*cannot go on with products_every=1"):
        Recorder(model, optimizer, tmp_path, settings=settings(1), resume=state)
    Recorder(model, optimizer, tmp_path, settings=settings("burst:2/4"), resume=state).close()
