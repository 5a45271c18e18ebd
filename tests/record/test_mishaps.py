"""What may happen in a training: the recorder measures what was made, says nothing wrong, and never stops it."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from thermodl.analyze.check import check_run  # noqa: E402
from thermodl.record import Recorder, RecorderSettings, open_run  # noqa: E402

ALL = RecorderSettings(probe_every=1, snapshot_every=1, moments_window=4, sketch_size=8)
STEPS = 12


class Loop:
    """A small network, stepped on random data; `happens` may change the training before a step."""

    def __init__(self, folder: Path | None, momenta: tuple[float, float] = (0.9, 0.9)):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        groups = [
            {"params": self.model[layer].parameters(), "momentum": momentum}
            for layer, momentum in zip((0, 2), momenta, strict=True)
        ]
        self.optimizer = torch.optim.SGD(groups, lr=0.1)
        self.data, self.others = (torch.Generator().manual_seed(seed) for seed in (1, 2))
        self.states: list[np.ndarray] = []
        self.recorder = None
        if folder:
            self.recorder = Recorder(self.model, self.optimizer, folder, probe=self.probe, settings=ALL)

    def probe(self) -> torch.Tensor:
        return self.loss(self.others)

    def loss(self, generator: torch.Generator) -> torch.Tensor:
        return self.model(torch.randn(5, 6, generator=generator, dtype=torch.float64)).square().mean()

    def step(self) -> None:
        self.optimizer.zero_grad()
        loss = self.loss(self.data)
        loss.backward()
        self.states.append(self.parameters())
        self.optimizer.step()
        if self.recorder:
            self.recorder.log(loss=loss)

    def parameters(self) -> np.ndarray:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()]).numpy().copy()

    def squares(self) -> np.ndarray:
        """‖Δθ‖² of every step, (layer, step)."""
        moved = np.diff([*self.states, self.parameters()], axis=0) ** 2
        sizes = [p.numel() for p in self.model.parameters()]
        return np.add.reduceat(moved, np.cumsum([0, *sizes])[:-1], axis=1).T


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_a_step_that_raises_leaves_nothing(momentum: float, tmp_path: Path) -> None:
    """Its probe, snapshot, moments and time are forgotten; the steps before and after are as if it had not been."""
    loop = Loop(tmp_path / "run", (momentum, momentum))
    for _ in range(5):
        loop.step()

    def refuse(*_: object) -> None:
        raise ArithmeticError

    handle = loop.optimizer.register_step_pre_hook(refuse)
    with pytest.raises(ArithmeticError):
        loop.step()
    loop.states.pop()
    handle.remove()
    for _ in range(STEPS - 5):
        loop.step()
    loop.recorder.close()
    run = open_run(tmp_path / "run").compute()
    for name in ("step", "probe_step", "snapshot_step"):
        np.testing.assert_array_equal(run[name], np.arange(STEPS))
    np.testing.assert_array_equal(run["parameters"].values.T, loop.states)
    np.testing.assert_array_equal(run["window_start"], [0, 5, 9])
    np.testing.assert_array_equal(run["window_stop"], [4, 9, 12])
    np.testing.assert_allclose(run["sgd_time"], np.arange(STEPS) * 0.1 / (1 - momentum))
    if momentum:
        assert not [defect for one in check_run(tmp_path / "run")[1] for defect in one.defects]
    else:
        np.testing.assert_allclose(run["update_squared"], loop.squares(), rtol=1e-9)
        # Without a buffer the velocity is known by the step before, which the refused one has covered up.
        assert np.flatnonzero(np.isnan(run["velocity_squared"]).any("layer")).tolist() == [5]


@pytest.mark.parametrize("last", ["failed", "finished"])
def test_a_run_that_ends_by_a_failing_step(last: str, tmp_path: Path) -> None:
    """No event is of a step that was not made, and the update of the last one is right."""
    loop = Loop(tmp_path / "run", (0.0, 0.0))
    for _ in range(6):
        loop.step()
    if last == "failed":
        loop.optimizer.register_step_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError), loop.recorder:
            loop.step()
        loop.states.pop()
    loop.recorder.close()
    run = open_run(tmp_path / "run").compute()
    assert run.attrs["state"] == last
    assert run["probe_step"].values.tolist() == run["snapshot_step"].values.tolist() == list(range(6))
    assert run["window_stop"].values.tolist() == ([4] if last == "failed" else [4, 6])
    np.testing.assert_allclose(run["update_squared"], loop.squares(), rtol=1e-9)


def test_updates_and_velocities_where_momentum_differs_and_changes(tmp_path: Path) -> None:
    """One group with momentum, one without, and later the other way round, with flushes: exact or NaN."""
    loop = Loop(tmp_path / "run", (0.9, 0.0))
    velocity, velocities = np.zeros(loop.parameters().size), []
    for step in range(STEPS):
        groups = loop.optimizer.param_groups
        groups[0]["momentum"], groups[1]["momentum"] = (0.9, 0.0) if step < 7 else (0.0, 0.9)
        if step % 3 == 0:
            loop.recorder.flush()
        velocities.append(velocity)
        loop.step()
        velocity = -(loop.parameters() - loop.states[-1]) / 0.1
    loop.recorder.close()
    run = open_run(tmp_path / "run").compute()
    np.testing.assert_allclose(
        run["update_squared"], np.where(np.isnan(run["update_squared"]), np.nan, loop.squares()), rtol=1e-9
    )
    assert np.isfinite(run["update_squared"].values[2:, :6]).all()
    assert np.isfinite(run["update_squared"].values[:2, 7:]).all()
    starts = np.cumsum([0, *run["layer_size"].values])[:-1]
    squares = np.add.reduceat(np.array(velocities) ** 2, starts, axis=1).T
    # The second group begins to have momentum at step 7, with an empty buffer.
    squares[2:, 7] = 0.0
    np.testing.assert_allclose(run["velocity_squared"], squares, rtol=1e-9)


def test_steps_that_a_scaler_skips(tmp_path: Path) -> None:
    """There is no row but a count, and what is logged then is not put into the row of the step before."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    infinite = (0, 1, 4)
    with Recorder(model, optimizer, tmp_path / "run", settings=RecorderSettings(sketch_size=8)) as recorder:
        for step in range(6):
            optimizer.zero_grad()
            loss = model(torch.ones(1, 3)).sum() * (float("inf") if step in infinite else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            recorder.log(loss=loss, attempt=step)
    run = open_run(tmp_path / "run").compute()
    assert run["attempt"].values.tolist() == [2, 3, 5]
    assert np.isfinite(run["loss"]).all()
    np.testing.assert_array_equal(run["skipped"], [2, np.nan, 1])


def test_a_gradient_that_is_scaled_still(tmp_path: Path) -> None:
    """A fused optimizer unscales within its step, or finds that done: g is the same either way."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    with Recorder(model, optimizer, tmp_path / "run"):
        for unscale in (True, False):
            optimizer.zero_grad()
            scaler.scale(model(torch.ones(1, 3)).sum()).backward()
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
    np.testing.assert_allclose(open_run(tmp_path / "run")["gradient_squared"][0], [6.0, 6.0])


def freeze(loop: Loop) -> None:
    loop.model[0].requires_grad_(False)


def add_parameters(loop: Loop) -> None:
    loop.optimizer.add_param_group({"params": [torch.zeros(3, requires_grad=True)]})


def flush(loop: Loop) -> None:
    # The step's own log() comes after it.
    def after(*_: object) -> None:
        handle.remove()
        if loop.recorder:
            loop.recorder.flush()

    handle = loop.optimizer.register_step_post_hook(after)


def break_probe(loop: Loop) -> None:
    loop.others = "no generator any more"


def narrow(loop: Loop) -> None:
    first, _, second = loop.model
    first.weight.data, first.bias.data, second.weight.data = (
        first.weight.data[:3],
        first.bias.data[:3],
        second.weight.data[:, :3],
    )
    for parameter in loop.model.parameters():
        parameter.grad = None
    loop.optimizer.state.clear()


def use_closure(loop: Loop) -> None:
    plain = loop.optimizer.step
    loop.optimizer.step = lambda: plain(lambda: None)


@pytest.mark.parametrize(
    ("happens", "warning", "steps"),
    [
        (freeze, None, STEPS),
        (add_parameters, "got further parameters since the recording began; they are not recorded", STEPS),
        (flush, r"log\(\) is ignored: it belongs before flush\(\)", STEPS),
        (break_probe, r"stopped \(.*the training goes on\. Steps safe on disk: 5 of 5", 5),
        (narrow, "its size has changed.*Steps safe on disk: 5 of 5", 5),
        (use_closure, None, STEPS),
    ],
)
def test_nothing_stops_the_training(
    happens: Callable[[Loop], None], warning: str | None, steps: int, tmp_path: Path
) -> None:
    """The weights are those of the loop without a recorder; one warning at most, and so many steps are there."""
    loops = Loop(tmp_path / "run"), Loop(None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for loop in loops:
            for step in range(STEPS):
                if step == 5:
                    torch.manual_seed(5)
                    happens(loop)
                loop.step()
        loops[0].recorder.close()
    np.testing.assert_array_equal(loops[0].parameters(), loops[1].parameters())
    assert len(caught) == (warning is not None), [str(one.message) for one in caught]
    assert all(re.search(str(warning), str(one.message)) for one in caught), caught[0].message
    run = open_run(tmp_path / "run").compute()
    assert run.sizes["step"] == steps
    assert run.attrs["state"] == ("finished" if steps == STEPS else "failed")
    assert bool(loops[0].recorder.lost) is (steps < STEPS)
    assert ("failure" in run.attrs) is (steps < STEPS)
    assert np.isfinite(run["gradient_squared"]).all()
    assert np.isfinite(run["noise_trace"]).all()


def test_sparse_gradients(tmp_path: Path) -> None:
    """They count as what they are: the same numbers as dense ones."""
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = nn.Embedding(9, 4, sparse=sparse)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        generator = torch.Generator().manual_seed(1)

        def loss(model: nn.Module = model, generator: torch.Generator = generator) -> torch.Tensor:
            return model(torch.randint(9, (6,), generator=generator)).square().sum()

        settings = RecorderSettings(probe_every=1, sketch_size=8)
        with Recorder(model, optimizer, tmp_path / str(sparse), probe=loss, settings=settings):
            for _ in range(4):
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
        found.append(open_run(tmp_path / str(sparse)).compute())
    for name in ("gradient_squared", "noise_trace", "update_squared", "gradient_sketch"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-5, err_msg=name)


def test_a_probe_that_draws_no_new_batch_is_told(tmp_path: Path) -> None:
    """Once; and one that draws from torch's own stream is not suspected."""
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fixed = torch.randn(4, 6)

    def record(folder: Path, probe: Callable[[], torch.Tensor]) -> None:
        with Recorder(model, optimizer, folder, probe=probe, settings=ALL):
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.randn(4, 6)).square().mean().backward()
                optimizer.step()

    record(tmp_path / "new", lambda: model(torch.randn(4, 6)).square().mean())
    with pytest.warns(RuntimeWarning, match="the same gradient twice: it must draw a new mini-batch") as caught:
        record(tmp_path / "fixed", lambda: model(fixed).square().mean())
    assert len(caught) == 1
