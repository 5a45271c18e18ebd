"""The curvature along the velocity: exact where it is known, without a trace in the training, and no risk to it."""

import copy
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from tests.record.quadratic import Quadratic, record_quadratic  # noqa: E402
from tests.record.test_recorder import normalized_net, train  # noqa: E402
from thermodl.record import Recorder, RecorderSettings, open_run  # noqa: E402
from thermodl.record.check import check_recording  # noqa: E402

EVERY = RecorderSettings(probe_every=0, curvature_every=1, snapshot_every=0, sketch_size=4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_of_a_quadratic(momentum: float, decay: float, tmp_path: Path) -> None:
    """½Σλθ² has vᵀHv = Σλv², to which coupled decay adds decay·‖v‖², with momentum and without."""
    curvature = torch.linspace(0.1, 1.5, 8, dtype=torch.float64)
    settings = RecorderSettings(probe_every=0, curvature_every=3, snapshot_every=1, sketch_size=8)
    record_quadratic(
        tmp_path / "run", learning_rate=0.1, momentum=momentum, curvature=curvature, weight_decay=decay,
        dimensions=8, steps=20, burn_in=0, settings=settings,
    )  # fmt: skip
    run = open_run(tmp_path / "run").compute()
    theta, at = run["parameters"].values, run["curvature_step"].values
    np.testing.assert_array_equal(at, np.arange(0, 20, 3))
    v = np.zeros_like(theta)
    v[:, 1:] = -np.diff(theta) / 0.1
    exact = ((curvature.numpy() + decay) @ v**2)[at]
    np.testing.assert_allclose(run["velocity_curvature"].values.sum(0), exact, rtol=1e-9)
    assert not any(check.defects for check in check_recording(tmp_path / "run")[1])


def test_of_a_network(tmp_path: Path) -> None:
    """Layer by layer against the Hessian written out, with `maximize`, and without a layer that has no gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Linear(1, 1)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5, weight_decay=0.1, maximize=True)
    x = torch.randn(5, 3, dtype=torch.float64)
    used = list(model.parameters())[:4]

    def loss(parameters: list[torch.Tensor] = used) -> torch.Tensor:
        w, b, u, c = parameters
        return -F.linear(torch.tanh(F.linear(x, w, b)), u, c).pow(4).mean()

    expected = []
    with Recorder(model, optimizer, tmp_path / "run", probe=loss, settings=EVERY) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            loss().backward()
            velocity = [optimizer.state[p].get("momentum_buffer", torch.zeros_like(p)).clone() for p in used]
            flat = torch.cat([v.reshape(-1) for v in velocity])
            sizes = [p.numel() for p in used]

            def of_flat(theta: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
                parts = theta.split(sizes)
                return loss([part.view_as(p) for part, p in zip(parts, used, strict=True)])

            hessian = torch.autograd.functional.hessian(of_flat, torch.cat([p.detach().reshape(-1) for p in used]))
            products = flat * (-hessian @ flat + 0.1 * flat)
            expected.append([float(part.sum()) for part in products.split(sizes)] + [0.0, 0.0])
            optimizer.step()
    assert recorder.step == 3
    got = open_run(tmp_path / "run")["velocity_curvature"].values.T
    assert np.abs(got[1:, :4]).min() > 0
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-15)


def test_it_does_not_disturb(tmp_path: Path) -> None:
    """With BatchNorm and dropout the weights and buffers are bit for bit those of the plain loop."""
    torch.manual_seed(0)
    plain = normalized_net()
    watched = copy.deepcopy(plain)
    train(plain, (1, 8, 8), None, RecorderSettings())
    train(watched, (1, 8, 8), tmp_path / "run", EVERY)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    run = open_run(tmp_path / "run")
    assert run.sizes["curvature"] == run.sizes["step"]
    assert np.isfinite(run["velocity_curvature"].values).all()


def test_refused_with_the_reason(tmp_path: Path) -> None:
    """Without a probe, for an optimizer without velocity, and where it is switched off."""
    model = Quadratic(4, 1.0, 1.0, 0)
    sgd, adam = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.Adam(model.parameters(), lr=0.1)
    for name, optimizer, options, reason in (
        ("probe", sgd, {"settings": EVERY}, "there is no probe"),
        ("velocity", adam, {"settings": EVERY, "probe": model.loss}, "the heavy-ball velocity is not defined for Adam"),
        ("off", sgd, {"probe": model.loss}, "curvature_every is 0"),
    ):
        # What was asked for and cannot be is said at once.
        told = pytest.warns(RuntimeWarning, match="set, but there is no") if name == "probe" else nullcontext()
        with told:
            recorder = Recorder(model, optimizer, tmp_path / name, **options)
        with recorder:
            model.loss().backward()
            optimizer.step()
            with pytest.raises(ValueError, match="it is the name of a dimension"):
                recorder.log(curvature=1.0)
        run = open_run(tmp_path / name)
        assert run.attrs["not_recorded"]["velocity_curvature"] == reason
        assert "velocity_curvature" not in run


class Once(torch.autograd.Function):
    """x², whose backward has no derivative."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        return 2 * ctx.saved_tensors[0] * grad


class NoDouble(torch.autograd.Function):
    """x², with a backward that says so itself when it is differentiated."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        return 2 * Refusing.apply(ctx.saved_tensors[0]) * grad


class Refusing(torch.autograd.Function):
    """x, which cannot be differentiated."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:  # noqa: ARG004 - torch's
        return x.clone()

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:  # noqa: ARG004 - torch's
        raise RuntimeError("no second derivative")


KERNELS = {"once": Once.apply, "raises": NoDouble.apply, "hidden": torch.sum}


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_without_second_derivative_ends_it_alone(kernel: str, tmp_path: Path) -> None:
    """One warning, the reason in the store, and the recording goes on; so where a gradient hides what it is made of.

    Below a second layer autograd gives half of Hv in silence, if it is not asked.
    """
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2) if kernel != "hidden" else nn.Identity())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(3, 4)
    settings = RecorderSettings(probe_every=1, curvature_every=1, snapshot_every=0)

    def probe() -> torch.Tensor:
        y = model(x + torch.randn(1))
        return y.pow(2).mean() if recorder.step < 2 else KERNELS[kernel](y).mean()

    with Recorder(model, optimizer, tmp_path / "run", probe=probe, settings=settings) as recorder:

        def go_on() -> None:
            for _ in range(5):
                optimizer.zero_grad()
                model(x).pow(2).mean().backward()
                optimizer.step()
                assert all(p.grad is not None and p.grad.grad_fn is None for p in model.parameters())

        with pytest.warns(RuntimeWarning) as said:
            go_on()
        assert len(said) == 1
        assert "the curvature vᵀHv is not recorded any more" in str(said[0].message)
    assert not recorder.lost
    run = open_run(tmp_path / "run")
    assert (run.sizes["step"], run.sizes["probe"], run.sizes["curvature"]) == (5, 5, 2)
    assert "none from step 2 on" in run.attrs["not_recorded"]["velocity_curvature"]
    assert not any(check.defects for check in check_recording(tmp_path / "run")[1])


def test_attention(tmp_path: Path) -> None:
    """The fused kernels have no second derivative; the plain formula is taken for this alone."""
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def loss() -> torch.Tensor:
        return model(torch.randn(2, 5, 8)).pow(4).mean()

    with Recorder(model, optimizer, tmp_path / "run", probe=loss, settings=EVERY):
        for _ in range(3):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    assert open_run(tmp_path / "run").sizes["curvature"] == 3
