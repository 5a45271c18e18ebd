"""The noise from micro-batches: exact, unbiased, and missing where it is not defined."""

import copy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from tests.record.quadratic import Quadratic  # noqa: E402
from tests.record.test_recorder import normalized_net  # noqa: E402
from thermodl.record import Recorder, RecorderSettings, open_run  # noqa: E402
from thermodl.record.check import check_recording  # noqa: E402
from thermodl.record.chunks import ChunkNoise  # noqa: E402
from thermodl.record.settings import make_settings  # noqa: E402
from thermodl.record.train import train  # noqa: E402

QUIET = RecorderSettings(probe_every=0, snapshot_every=0, sketch_size=4)


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_unbiased_for_the_covariance_of_the_step(micro_batches: int, tmp_path: Path) -> None:
    """On a quadratic with noise C per micro-batch tr C of the step is tr C/K, whatever the weight decay."""
    dimensions, steps, noise = 64, 400, 2.0
    model = Quadratic(dimensions, 1.0, noise, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5, weight_decay=0.1)
    with Recorder(model, optimizer, tmp_path / "run", settings=QUIET) as recorder:
        for _ in range(steps):
            optimizer.zero_grad()
            for _ in range(micro_batches):
                (model.loss() / micro_batches).backward()
                recorder.micro_batch()
            optimizer.step()
    run = open_run(tmp_path / "run").compute()
    measured, exact = run["chunk_noise_trace"].values[0], noise * dimensions / micro_batches
    deviation = np.sqrt(2 / ((micro_batches - 1) * dimensions))
    # 4 standard errors of the mean; the spread itself is known to a few per cent.
    assert measured.mean() == pytest.approx(exact, rel=4 * deviation / np.sqrt(steps))
    assert measured.std() == pytest.approx(exact * deviation, rel=0.2)
    np.testing.assert_array_equal(run["chunk_count"], micro_batches)
    assert "chunk_noise_trace" not in run.attrs["not_recorded"]
    assert run.attrs["chunk_statistics"] is False
    assert not any(check.defects for check in check_recording(tmp_path / "run")[1])


@pytest.mark.parametrize("to_none", [True, False])
def test_against_the_gradients_one_by_one(to_none: bool, tmp_path: Path) -> None:
    """Layer by layer, with another K at each step, a layer that only some see, and a step that was not made."""
    torch.manual_seed(0)
    first, second, third = (nn.Linear(3, 3).double() for _ in range(3))
    model = nn.Sequential(first, second, third)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = []
    with Recorder(model, optimizer, tmp_path / "run", settings=QUIET) as recorder:
        for step in range(8):
            optimizer.zero_grad(set_to_none=to_none)
            count, parts = (1, 2, 3, 5)[step % 4], []
            for k in range(count):
                x = torch.randn(4, 3, dtype=torch.float64)
                y = second(first(x)) if k % 2 else first(x)
                loss = y.pow(2).mean() / count
                found = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True)
                pairs = zip(found, model.parameters(), strict=True)
                parts.append([np.zeros(p.shape) if g is None else g.numpy() for g, p in pairs])
                loss.backward()
                recorder.micro_batch()
            if step in (4, 5):
                continue
            optimizer.step()
            values = [np.stack(each).reshape(count, -1) * count for each in zip(*parts, strict=True)]
            expected.append([value.var(axis=0, ddof=1).sum() / count if count > 1 else np.nan for value in values])
    run = open_run(tmp_path / "run").compute()
    np.testing.assert_allclose(run["chunk_noise_trace"].values.T, expected, rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(run["chunk_count"], [np.nan, 2, 3, 5, 3, 5])


def test_missing_where_the_gradient_was_changed(tmp_path: Path) -> None:
    """A clipped step is NaN, one that clipping left as it is is not; without a call there is no array."""
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for name in ("plain", "clipped"):
        with Recorder(model, optimizer, tmp_path / name, settings=QUIET) as recorder:
            for step in range(6):
                optimizer.zero_grad()
                for _ in range(2):
                    model(torch.randn(4, 3)).pow(2).mean().backward()
                    if name == "clipped":
                        recorder.micro_batch()
                nn.utils.clip_grad_norm_(model.parameters(), 1e-3 if step % 2 else 1e3)
                optimizer.step()
                with pytest.raises(ValueError, match="the recorder measures it itself"):
                    recorder.log(chunk_count=2.0)
    plain, clipped = (open_run(tmp_path / name).compute() for name in ("plain", "clipped"))
    assert "chunk_count" not in plain
    assert "micro_batch() was not called" in plain.attrs["not_recorded"]["chunk_noise_trace"]
    np.testing.assert_array_equal(np.isnan(clipped["chunk_noise_trace"].values), [[False, True] * 3] * 2)
    for name in ("plain", "clipped"):
        assert not any(check.defects for check in check_recording(tmp_path / name)[1])


@pytest.mark.parametrize("how", ["fused", "step", "unscale_"])
def test_known_under_a_gradient_scaler(tmp_path: Path, how: str) -> None:
    """Its scale is a power of two, and takes no digit: the noise is that of a training without it."""
    found = {}
    for scaled in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(3, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=how == "fused")
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=scaled)
        with Recorder(model, optimizer, tmp_path / str(scaled), settings=QUIET) as recorder:
            for _ in range(6):
                optimizer.zero_grad()
                for _ in range(2):
                    scaler.scale(model(torch.randn(4, 3)).pow(2).mean() / 2).backward()
                    recorder.micro_batch()
                if how == "unscale_":
                    scaler.unscale_(optimizer)
                scaler.step(optimizer)
                scaler.update()
        found[scaled] = open_run(tmp_path / str(scaled))["chunk_noise_trace"].values
    assert (found[False] > 0).all()
    np.testing.assert_allclose(found[True], found[False], rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1024.0])
@pytest.mark.parametrize("factor", [0.0, 0.3, 2 / 3])
def test_missing_where_the_gradient_is_no_power_of_two_of_the_sum(scale: float, factor: float) -> None:
    """Zeroed or clipped, with a scale or without; what stays, or is scaled alone, is measured. Nothing at all is 0."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, 8, generator=generator)
    noise = ChunkNoise(torch.zeros(8), [slice(0, 5), slice(5, 8)], torch.float64)
    held = [torch.zeros(5), torch.zeros(3)]

    def take(by: float, of: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(8)
        for one in of:
            total = total + one
            noise.add(total.split([5, 3]), held)
        trace = noise.take((total * by).split([5, 3]))
        assert trace is not None
        return trace

    exact = ((drawn[0] - drawn[1]) ** 2).double().split([5, 3])
    found = take(1 / scale, drawn)
    np.testing.assert_allclose(found * scale**2, [part.sum() for part in exact], rtol=1e-6)
    assert take(factor / scale, drawn).isnan().all()
    assert (take(1.0, torch.zeros(2, 8)) == 0).all()


def test_it_does_not_disturb(tmp_path: Path) -> None:
    """With BatchNorm, which is told, and dropout the weights are bit for bit those of the plain loop."""
    torch.manual_seed(0)
    plain = normalized_net()
    watched = copy.deepcopy(plain)
    for model, folder in ((plain, None), (watched, tmp_path / "run")):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        recorder = Recorder(model, optimizer, folder, settings=QUIET) if folder else None
        for _ in range(20):
            optimizer.zero_grad()
            for _ in range(3):
                (F.cross_entropy(model(torch.randn(8, 1, 8, 8)), torch.randint(10, (8,))) / 3).backward()
                if recorder:
                    recorder.micro_batch()
            optimizer.step()
        if recorder:
            recorder.close()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    run = open_run(tmp_path / "run")
    assert run.attrs["chunk_statistics"] is True
    assert (run["chunk_noise_trace"].values > 0).all()


def test_the_built_in_training(tmp_path: Path) -> None:
    """Micro-batches and probes measure the same noise; the curvature goes through recomputed micro-batches."""
    table = {
        "model": "mlp", "steps": 30, "batch_size": 32, "accumulate": 4, "sampling": "replacement", "device": "cpu",
        "learning_rate": 1e-4, "evaluate_every": 0, "checkpoint_every": 0,
        "recorder": {"probe_every": 1, "curvature_every": 10, "snapshot_every": 0, "sketch_size": 8},
    }  # fmt: skip
    train(make_settings(table), tmp_path / "run")
    run = open_run(tmp_path / "run").compute()
    chunks, probes = (run[name].values.sum(0) for name in ("chunk_noise_trace", "noise_trace"))
    error = np.hypot(*(values.std() / np.sqrt(values.size) for values in (chunks, probes)))
    assert abs(chunks.mean() - probes.mean()) < 4 * error
    assert np.isfinite(run["velocity_curvature"].values).all()
    assert (run.sizes["curvature"], run["chunk_count"].values.tolist()) == (3, [4.0] * 30)
