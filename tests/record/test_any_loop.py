"""Any loop: whatever makes the gradient and the step, the store holds what the optimizer saw and did."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from thermodl.analyze.check import check_run  # noqa: E402
from thermodl.record import Recorder, RecorderSettings, observables, open_run  # noqa: E402
from thermodl.record.errors import RunError  # noqa: E402
from thermodl.record.signs import draw_signs  # noqa: E402
from thermodl.record.store import read_attributes  # noqa: E402

SETTINGS = RecorderSettings(probe_every=0, snapshot_every=1, sketch_size=8)
ROOT = Path(__file__).parents[2]


def flat(tensors) -> np.ndarray:
    """In C order, in float64."""
    return np.concatenate([t.detach().contiguous().view(-1).double().numpy().copy() for t in tensors])


def batch(step: int, size: int = 8, features: int = 6, dtype=torch.float64):
    """The same batch for the same step."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(size, features, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randint(3, (size,), generator=generator)


def small_model(dtype=torch.float64) -> nn.Sequential:
    """Two layers; always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


class Witness:
    """Notes θ and p.grad at the moment before a step as the loop itself sees them."""

    def __init__(self, parameters):
        self.parameters, self.rows = list(parameters), []

    def look(self) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        self.rows.append((flat(self.parameters), flat(gradients)))

    def compare(self, run, *, sign: float = 1.0, decay: float = 0.0, rtol: float = 1e-12) -> None:
        """All that is defined for any optimizer, by its definition."""
        theta, raw = (np.array(column) for column in zip(*self.rows, strict=True))
        g, moved = sign * raw + decay * theta, theta - theta[0]
        update = np.diff([*theta, flat(self.parameters)], axis=0)
        expected = {
            "gradient_squared": g * g,
            "parameter_dot_gradient": theta * g,
            "parameter_squared": theta * theta,
            "displacement_squared": moved * moved,
            "displacement_dot_gradient": moved * g,
            "update_squared": update * update,
        }
        edges = np.cumsum([0, *run["layer_size"].values])[:-1]
        for name, products in expected.items():
            if name in run:
                exact = np.add.reduceat(products, edges, axis=1).T
                scale = np.abs(exact).max()
                np.testing.assert_allclose(run[name].values, exact, rtol=rtol, atol=rtol * scale, err_msg=name)
        for name, values in (("parameter_sketch", moved), ("gradient_sketch", g)):
            exact = sketch(run, values)
            atol = max(rtol, 1e-12 if run[name].dtype == "f8" else 1e-6) * np.abs(exact).max()
            np.testing.assert_allclose(run[name].values, exact, atol=atol, rtol=0, err_msg=name)
        np.testing.assert_array_equal(run["parameters"].values.T, theta)


def sketch(run, values: np.ndarray) -> np.ndarray:
    """(Px)_c = Σ_{j ≡ c mod k} s_j x_j per group, (group, k, step); layers of a group follow one another here."""
    parts, place, width = [], 0, run.sizes["sketch"]
    for index, group in enumerate(run["group"].values):
        size = int(run["layer_size"].values[run["layer_group"].values == group].sum())
        signed = draw_signs(size, 0, index) * values[:, place : place + size]
        padded = np.pad(signed, ((0, 0), (0, -size % width)))
        parts.append(padded.reshape(len(values), -1, width).sum(1).T)
        place += size
    return np.array(parts)


def defects(folder: Path) -> list[str]:
    """What the certificate finds wrong with a recording."""
    return [defect for check in check_run(folder)[1] for defect in check.defects]


class Langevin(torch.optim.Optimizer):
    """An optimizer that torch does not know: a step against the gradient, and noise."""

    def __init__(self, parameters, lr: float):
        super().__init__(parameters, {"lr": lr, "weight_decay": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = None if closure is None else closure()
        generator = torch.Generator().manual_seed(0)
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                noise = torch.randn(p.shape, generator=generator, dtype=p.dtype)
                p.add_(p.grad, alpha=-group["lr"]).add_(noise, alpha=group["lr"])
        return loss


class NoisySGD(torch.optim.SGD):
    """It inherits SGD's step, whose hooks fire a second time inside its own, and does more."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(0.01)
        return loss


OPTIMIZERS = {
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 1, 0),
    "dampening": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.02), 1, 0.02),
    "nesterov": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.02), 1, 0.02),
    "maximize": (lambda p: torch.optim.SGD(p, lr=0.01, maximize=True, weight_decay=0.02), -1, 0.02),
    "Adam": (lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.02), 1, 0.02),
    "Adam maximize": (lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.02, maximize=True), -1, 0.02),
    "AdamW": (lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.02), 1, 0),
    "RMSprop": (lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, weight_decay=0.02), 1, 0.02),
    "Langevin": (lambda p: Langevin(p, lr=0.01), 1, 0),
    "NoisySGD": (lambda p: NoisySGD(p, lr=0.1, momentum=0.9), 1, 0),
}


@pytest.mark.parametrize("closure", [False, True], ids=["", "closure"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name: str, closure: bool, tmp_path: Path) -> None:
    """Gradient and motion by their definitions; the velocity is v_t of the heavy ball, or absent and named."""
    make, sign, decay = OPTIMIZERS[name]
    torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)  # from now on the hooks of SGD.step are torch's own
    model = small_model()
    optimizer, witness, velocities = make(model.parameters()), Witness(model.parameters()), []

    def make_gradient() -> torch.Tensor:
        x, y = batch(len(witness.rows))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        witness.look()
        return loss

    with Recorder(model, optimizer, tmp_path / "run", settings=SETTINGS) as recorder:
        for _ in range(6):
            states = [optimizer.state[p].get("momentum_buffer") for p in model.parameters()]
            velocities.append(np.zeros(53) if states[0] is None else flat(states))
            if closure:
                loss = optimizer.step(make_gradient)
            else:
                loss = make_gradient()
                optimizer.step()
            recorder.log(loss=loss)
    run = open_run(tmp_path / "run").compute()
    witness.compare(run, sign=sign, decay=decay)
    assert run["step"].values.tolist() == run["snapshot_step"].values.tolist() == list(range(6))
    assert np.isfinite(run["loss"]).all()
    plain = type(optimizer) is torch.optim.SGD
    assert ("velocity_squared" in run) == plain
    if not plain:
        assert type(optimizer).__name__ in run.attrs["not_recorded"]["velocity_squared"]
        assert "update_squared" in run
    elif optimizer.param_groups[0]["momentum"]:
        squares = np.array(velocities) ** 2
        np.testing.assert_allclose(run["velocity_squared"].values.sum(0), squares.sum(1), rtol=1e-12)
    assert not defects(tmp_path / "run")


class Knotted(nn.Module):
    """What recording could disturb: BatchNorm's buffers and dropout's stream; a tied weight and a frozen one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.again = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.again.weight = self.first.weight
        self.norm, self.drop, self.last = nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 3)
        self.first.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(self.again(self.norm(torch.tanh(self.first(x))))))


class Knots:
    """One training of it; each method makes a step in a way of its own."""

    def __init__(self, make_optimizer, compiled: bool = False):
        self.net = Knotted()
        self.model = torch.compile(self.net, backend="eager") if compiled else self.net
        self.optimizer = make_optimizer(self.net.parameters())
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        self.others = iter(range(1000, 2000))

    def loss(self, seed: int) -> torch.Tensor:
        x, y = batch(seed, dtype=torch.float32)
        return F.cross_entropy(self.model(x), y)

    def backward(self, step: int) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(step)
        loss.backward()
        return loss

    def plain(self, step: int) -> None:
        self.backward(step)
        self.optimizer.step()

    def closure(self, step: int) -> None:
        self.optimizer.step(lambda: self.backward(step))

    def scaled(self, step: int) -> None:
        self.optimizer.zero_grad()
        self.scaler.scale(self.loss(step) * (float("inf") if step in (0, 3) else 1.0)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def bfloat16(self, step: int) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            self.plain(step)

    def accumulated(self, step: int) -> None:
        self.optimizer.zero_grad()
        for micro in range(3):
            (self.loss(3 * step + micro) / 3).backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 0.1)
        self.optimizer.step()

    def missing(self, step: int) -> None:
        self.backward(step)
        if step % 2:
            self.net.last.weight.grad = None
        self.optimizer.step()

    def nan(self, step: int) -> None:
        self.optimizer.zero_grad()
        (self.loss(step) * (float("nan") if step == 4 else 1.0)).backward()
        self.optimizer.step()


def momentum(parameters) -> torch.optim.SGD:
    """The optimizer of the ways below."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01)


WAYS = {f"{name}-{way}": (make, way) for way in ("plain", "closure") for name, (make, *_) in OPTIMIZERS.items()}
WAYS |= {way: (momentum, way) for way in ("scaled", "bfloat16", "accumulated", "missing", "nan")}
WAYS |= {"fused": (lambda p: torch.optim.Adam(p, lr=0.01, fused=True), "scaled")}
WAYS |= {"compiled": (momentum, "plain")}


@pytest.mark.parametrize("name", WAYS)
def test_no_training_is_disturbed(name: str, tmp_path: Path) -> None:
    """Weights, BatchNorm's buffers and the random stream: bit for bit those of the loop without a recorder."""
    make, way = WAYS[name]
    ends = []
    for folder in (tmp_path / "run", None):
        knots = Knots(make, compiled=name == "compiled")
        settings = RecorderSettings(probe_every=2, snapshot_every=2, moments_window=2, sketch_size=8)
        options = {"probe": lambda knots=knots: knots.loss(next(knots.others)), "settings": settings}
        with Recorder(knots.model, knots.optimizer, folder, **options) if folder else contextlib.nullcontext() as run:
            for step in range(6):
                getattr(knots, way)(step)
                if run:
                    run.log(mine=step)
        ends.append([*knots.net.state_dict().values(), torch.rand(3)])
    for recorded, plain in zip(*ends, strict=True):
        torch.testing.assert_close(recorded, plain, rtol=0, atol=0, equal_nan=True)
    run = open_run(tmp_path / "run")
    assert run["layer"].values.tolist() == ["first.weight", "norm.weight", "norm.bias", "last.weight", "last.bias"]
    assert run["mine"].values.tolist() == ([1, 2, 4, 5] if way == "scaled" else [0, 1, 2, 3, 4, 5])


class Syncs(TorchDispatchMode):
    """Counts what would make the host wait for a device; reading a number, and copying to the host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        super().__init__()
        self.count = 0
        for name in ("cpu", "numpy", "tolist", "nonzero"):
            monkeypatch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)))

    def _counted(self, method):
        def call(*args, **options):
            self.count += 1
            return method(*args, **options)

        return call

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        waits = function.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.equal)
        to_host = function.overloadpacket is torch.ops.aten._to_copy and (kwargs or {}).get("device") is not None
        self.count += waits or to_host
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "culprit",
    [None, float, bool, lambda t: t.item(), lambda t: t.tolist(), lambda t: t.cpu(), lambda t: t.to("cpu", copy=True)],
    ids=["", "float", "bool", "item", "tolist", "cpu", "to"],
)
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_no_step_waits_for_the_device(
    momentum: float, culprit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one call that would, between two flushes; and each kind is found where it is put in."""
    model = small_model(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    monkeypatch.setattr(observables, "measure", lambda *args: observables.measure_on_device(*args[:7]))
    settings = RecorderSettings(probe_every=0, snapshot_every=0, sketch_size=8, flush_seconds=3600)
    with (
        Recorder(model, optimizer, tmp_path / "run", settings=settings) as recorder,
        monkeypatch.context() as patches,
        Syncs(patches) as syncs,
    ):
        for step in range(5):
            x, y = batch(step, dtype=torch.float32)
            optimizer.zero_grad()
            for _ in range(2):
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                recorder.micro_batch()
            optimizer.step()
            recorder.log(loss=loss if culprit is None else torch.as_tensor(culprit(loss.detach())))
    assert syncs.count == (0 if culprit is None else 5)


def test_lbfgs_is_measured_where_it_starts(tmp_path: Path) -> None:
    """Of the many gradients inside one step, the first is that at θ_t."""
    model = small_model()
    optimizer, witness = torch.optim.LBFGS(model.parameters(), max_iter=3), Witness(model.parameters())

    def make_gradient() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        calls.append(1)
        if len(calls) == 1:
            witness.look()
        return loss

    with Recorder(model, optimizer, tmp_path / "run", settings=SETTINGS):
        for step in range(3):
            (x, y), calls = batch(step), []
            optimizer.step(make_gradient)
            assert len(calls) > 1
    witness.compare(open_run(tmp_path / "run").compute())


def test_groups_scheduler_clipping_accumulation(tmp_path: Path) -> None:
    """Two rates that a scheduler moves, clipped sums of three backward passes, a loss that is not a number."""
    model = small_model()
    parts = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.01}]
    optimizer, witness = torch.optim.SGD(parts, momentum=0.9, weight_decay=0.1), Witness(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    factors = []
    with Recorder(model, optimizer, tmp_path / "run", settings=SETTINGS) as recorder:
        for step in range(6):
            optimizer.zero_grad()
            for micro in range(3):
                x, y = batch(3 * step + micro)
                (F.cross_entropy(model(x), y) / 3).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.2)
            factors.append(min(1.0, 0.2 / (float(norm) + 1e-6)))
            witness.look()
            optimizer.step()
            recorder.log(loss=float("nan") if step == 2 else 1.0, clip_factor=factors[-1])
            scheduler.step()
    run = open_run(tmp_path / "run").compute()
    assert min(factors) < 1
    witness.compare(run, decay=0.1)
    halved = 0.5 ** (np.arange(6) // 2)
    np.testing.assert_allclose(run["learning_rate"].values, [0.1 * halved, 0.01 * halved])
    np.testing.assert_allclose(run["clip_factor"].values, factors)
    assert np.flatnonzero(np.isnan(run["loss"].values)).tolist() == [2]
    assert not defects(tmp_path / "run")
    assert "1 step has no loss" in str([check.found for check in check_run(tmp_path / "run")[1]])


def test_gradients_that_are_not_there(tmp_path: Path) -> None:
    """A layer without gradient has none in the store either, and the coupled decay leaves it alone."""
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    with Recorder(model, optimizer, tmp_path / "run", settings=SETTINGS):
        for step in range(4):
            optimizer.zero_grad()
            hidden = model[:2](batch(step)[0])
            (hidden.sum() if step % 2 else model[2](hidden).square().sum()).backward()
            optimizer.step()
    run = open_run(tmp_path / "run").compute()
    there = run["gradient_squared"].sel(layer="2.weight").values > 0
    assert there.tolist() == [True, False, True, False]
    assert (run["update_squared"].sel(layer="2.weight").values > 0).tolist() == there.tolist()


@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
def test_grad_scaler(fused: bool, tmp_path: Path) -> None:
    """Unscaled gradients and their losses step by step as without a scaler; what it skips is counted, not recorded."""
    skips = {0, 1, 4, 7, 8, 9}
    plain, scaled = small_model(torch.float32), small_model(torch.float32)
    # Not SGD with momentum: fused, and skipped at first, torch 2.14 leaves its momentum buffer uninitialised.
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.1, fused=fused) for model in (plain, scaled)]
    with Recorder(plain, optimizers[0], tmp_path / "plain", settings=SETTINGS) as recorder:
        for step in range(12):
            x, y = batch(step, dtype=torch.float32)
            optimizers[0].zero_grad()
            loss = F.cross_entropy(plain(x), y)
            loss.backward()
            if step not in skips:
                optimizers[0].step()
                recorder.log(loss=loss, mine=step)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with Recorder(scaled, optimizers[1], tmp_path / "scaled", settings=SETTINGS) as recorder:
        for step in range(12):
            x, y = batch(step, dtype=torch.float32)
            optimizers[1].zero_grad()
            loss = F.cross_entropy(scaled(x), y)
            scaler.scale(loss * float("inf") if step in skips else loss).backward()
            scaler.step(optimizers[1])
            scaler.update()
            recorder.log(loss=loss)
            recorder.log(mine=step)
    one, other = (open_run(tmp_path / name).compute() for name in ("plain", "scaled"))
    assert "skipped" not in one
    np.testing.assert_array_equal(np.nan_to_num(other["skipped"].values), [2, 0, 1, 0, 3, 0])
    compare_runs(one, other.drop_vars("skipped"), rtol=1e-6)
    assert not defects(tmp_path / "scaled")


def compare_runs(one, other, rtol: float = 0.0) -> None:
    """All arrays of two runs but the wall time, to rounding of the largest value; at 0 bit for bit."""
    assert set(one.data_vars) == set(other.data_vars)
    for name in set(one.data_vars) - {"wall_time"}:
        a, b = one[name].values, other[name].values
        atol = rtol * np.nanmax(np.abs(a), initial=0.0)
        np.testing.assert_allclose(b, a, rtol=rtol, atol=atol, err_msg=name)
    assert one["layer"].values.tolist() == other["layer"].values.tolist()
    assert one["group"].values.tolist() == other["group"].values.tolist()


def test_bfloat16(tmp_path: Path) -> None:
    """Parameters, gradients and updates of eight bits are measured without further rounding."""
    model = small_model(torch.bfloat16)
    optimizer, witness = torch.optim.Adam(model.parameters(), lr=0.01), Witness(model.parameters())
    with Recorder(model, optimizer, tmp_path / "run", settings=SETTINGS):
        for step in range(5):
            x, y = batch(step, dtype=torch.bfloat16)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            witness.look()
            optimizer.step()
    run = open_run(tmp_path / "run").compute()
    witness.compare(run)
    assert run.attrs["parameter_dtype"] == "bfloat16"


def test_compiled_channels_last_and_made_before(tmp_path: Path) -> None:
    """The optimizer is made first, the model converted and compiled later: names are plain, the sketch in C order."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.to(torch.float64).to(memory_format=torch.channels_last)
    model[2] = torch.compile(model[2], backend="eager")
    compiled = torch.compile(model, backend="eager")
    witness = Witness(model.parameters())
    with Recorder(compiled, optimizer, tmp_path / "run", settings=SETTINGS):
        for step in range(4):
            x, y = batch(step, 4, 75)
            optimizer.zero_grad()
            F.cross_entropy(compiled(x.reshape(4, 3, 5, 5)), y).backward()
            assert not model[0].weight.is_contiguous()
            witness.look()
            optimizer.step()
    run = open_run(tmp_path / "run").compute()
    witness.compare(run)
    assert run["layer"].values.tolist() == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert run["group"].values.tolist() == ["0", "2"]


def test_parameters_that_cannot_be_recorded(tmp_path: Path) -> None:
    """One sentence each, before anything is written."""
    complex_model = nn.Linear(2, 2, dtype=torch.complex64)
    split = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    other = nn.Linear(2, 2)
    for model, of, words in (
        (complex_model, complex_model, "weight is torch.complex64"),
        (split, split, r"1\.weight has no values yet"),
        (nn.LazyLinear(2), None, "has no values yet"),
        (other, nn.Linear(2, 2), "none of the model's parameters"),
        (other.requires_grad_(False), other, "nothing to record"),
    ):
        optimizer = torch.optim.SGD((of or model).parameters(), lr=0.1)
        with pytest.raises(RunError, match=words):
            Recorder(model, optimizer, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def plain_loop(model: nn.Module, folder: Path, loss_of, batches, settings: RecorderSettings, probe=None) -> None:
    """What the frameworks are held against: AdamW, clipped at 0.1."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    with Recorder(model, optimizer, folder, settings=settings, probe=probe) as recorder:
        for parts in batches:
            optimizer.zero_grad()
            losses = [loss_of(model, part) / len(parts) for part in parts]
            for loss in losses:
                loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            recorder.log(loss=torch.stack(losses).sum())


class Data(torch.utils.data.Dataset):
    """48 examples as the frameworks want them."""

    def __init__(self):
        self.x, self.y = batch(99, 48, dtype=torch.float32)

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> dict:
        return {"x": self.x[index], "labels": self.y[index]}

    def batches(self, per_step: int) -> list[list[dict]]:
        """Micro-batches of four, in order, `per_step` for each step."""
        parts = [{"x": self.x[i : i + 4], "labels": self.y[i : i + 4]} for i in range(0, 48, 4)]
        return [parts[i : i + per_step] for i in range(0, len(parts), per_step)]


class Classifier(nn.Module):
    """A model that returns its loss, as those of transformers do."""

    def __init__(self):
        super().__init__()
        self.body = small_model(torch.float32)

    def forward(self, x, labels):
        logits = self.body(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def probe_of(model: nn.Module):
    """Draws batches of its own."""
    steps = iter(range(1000, 2000))

    def probe() -> torch.Tensor:
        x, y = batch(next(steps), dtype=torch.float32)
        return model(x, y)["loss"]

    return probe


PROBING = RecorderSettings(probe_every=2, snapshot_every=1, sketch_size=8)


class Bomb(Exception):
    """What ends a training in the tests."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulate", [1, 3])
def test_lightning(accumulate: int, tmp_path: Path) -> None:
    """Every number of a Lightning training is that of the plain loop, and so are the weights, bit for bit."""
    lightning = pytest.importorskip("lightning.pytorch")
    from thermodl.record.integrations.lightning import ThermoCallback

    module, plain = lightning_module(), Classifier()
    plain_loop(
        plain, tmp_path / "plain", lambda m, b: m(**b)["loss"], Data().batches(accumulate), PROBING, probe_of(plain)
    )
    callback = ThermoCallback(tmp_path / "lightning", settings=PROBING, probe=probe_of(module.model))
    trainer = lightning.Trainer(
        callbacks=[callback], max_epochs=1, accumulate_grad_batches=accumulate, gradient_clip_val=0.1, **quiet(tmp_path)
    )
    trainer.fit(module, torch.utils.data.DataLoader(Data(), 4))
    one, other = (open_run(tmp_path / name).compute() for name in ("plain", "lightning"))
    assert other.sizes["step"] == 12 / accumulate
    if accumulate > 1:
        # Clipped, the gradient of the step is not the sum of its batches.
        assert other["chunk_noise_trace"].isnull().all()
        other = other.drop_vars(["chunk_noise_trace", "chunk_count"])
    other["layer"] = [name.removeprefix("model.") for name in other["layer"].values]
    compare_runs(one, other.assign_coords(group=one["group"].values, layer_group=one["layer_group"]))
    assert read_attributes(tmp_path / "lightning")["state"] == "finished"


@pytest.mark.filterwarnings("ignore")
def test_lightning_measures_accumulated_batches(tmp_path: Path) -> None:
    """Without clipping the batches of a step give its noise, as `micro_batch` does in a plain loop."""
    lightning = pytest.importorskip("lightning.pytorch")
    from thermodl.record.integrations.lightning import ThermoCallback

    module, plain = lightning_module(), Classifier()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.1)
    with Recorder(plain, optimizer, tmp_path / "plain", settings=PROBING) as recorder:
        for index, part in enumerate(torch.utils.data.DataLoader(Data(), 4)):
            (plain(**part)["loss"] / 3).backward()
            recorder.micro_batch()
            if index % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
    callback = ThermoCallback(tmp_path / "lightning", settings=PROBING)
    trainer = lightning.Trainer(callbacks=[callback], max_epochs=1, accumulate_grad_batches=3, **quiet(tmp_path))
    trainer.fit(module, torch.utils.data.DataLoader(Data(), 4))
    one, other = (open_run(tmp_path / name)["chunk_noise_trace"].values for name in ("plain", "lightning"))
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore")
def test_lightning_states_and_skipped_steps(tmp_path: Path) -> None:
    """An error fails the run, Ctrl-C stops it; a GradScaler's skipped steps are counted."""
    lightning = pytest.importorskip("lightning.pytorch")
    from thermodl.record.integrations.lightning import ThermoCallback

    for error, state in ((Bomb, "failed"), (KeyboardInterrupt, "stopped")):
        trainer = lightning.Trainer(callbacks=[ThermoCallback(tmp_path / state)], max_epochs=1, **quiet(tmp_path))
        with pytest.raises((Bomb, SystemExit)):
            trainer.fit(lightning_module(error), torch.utils.data.DataLoader(Data(), 4))
        attributes = read_attributes(tmp_path / state)
        assert (attributes["state"], attributes["committed"]["step"]) == (state, 5)

    from lightning.pytorch.plugins import MixedPrecision

    module = lightning_module()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=10**6)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    callback = ThermoCallback(tmp_path / "scaled")
    trainer = lightning.Trainer(callbacks=[callback], max_epochs=2, plugins=[precision], **quiet(tmp_path))
    trainer.fit(module, torch.utils.data.DataLoader(Data(), 4))
    run = open_run(tmp_path / "scaled").compute()
    skipped = np.nan_to_num(run["skipped"].values).sum()
    assert skipped > 0
    assert skipped + run.sizes["step"] == 24


def quiet(folder: Path) -> dict:
    """A Lightning trainer that writes nothing and says nothing."""
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return {"accelerator": "cpu", "devices": 1, "default_root_dir": folder, **dict.fromkeys(off, False)}


def lightning_module(error: type[BaseException] | None = None):
    """The classifier; with an error, at the sixth batch."""
    import lightning.pytorch as lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Classifier()

        def training_step(self, part, index):
            if error is not None and index == 5:
                raise error
            return self.model(**part)["loss"]

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)

    return Module()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulate", [1, 3])
def test_transformers(accumulate: int, tmp_path: Path) -> None:
    """Every number of a training by the Hugging Face Trainer is that of the plain loop; failures are seen by `with`."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from thermodl.record.integrations.transformers import ThermoCallback

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    def trainer(callback, model) -> InOrder:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        arguments = transformers.TrainingArguments(
            str(tmp_path / "hf"),
            num_train_epochs=1,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=accumulate,
            max_grad_norm=0.1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
        return InOrder(model, arguments, train_dataset=Data(), optimizers=(optimizer, schedule), callbacks=[callback])

    model, plain = Classifier(), Classifier()
    plain_loop(
        plain, tmp_path / "plain", lambda m, b: m(**b)["loss"], Data().batches(accumulate), PROBING, probe_of(plain)
    )
    trainer(ThermoCallback(tmp_path / "trainer", settings=PROBING, probe=probe_of(model)), model).train()
    one, other = (open_run(tmp_path / name).compute() for name in ("plain", "trainer"))
    assert other.sizes["step"] == 12 / accumulate
    compare_runs(one, other.assign_coords(layer=other["layer"]), rtol=1e-6 if accumulate > 1 else 0.0)
    assert read_attributes(tmp_path / "trainer")["state"] == "finished"

    class Stop(transformers.TrainerCallback):
        def __init__(self, error):
            self.error = error

        def on_step_end(self, _, state, *__, **___):
            if state.global_step == 3:
                raise self.error

    for error, state in ((Bomb, "failed"), (KeyboardInterrupt, "stopped")):
        with contextlib.suppress(error), ThermoCallback(tmp_path / state) as callback:
            failing = trainer(callback, Classifier())
            failing.add_callback(Stop(error))
            failing.train()
        attributes = read_attributes(tmp_path / state)
        assert (attributes["state"], attributes["committed"]["step"]) == (state, 3)


@pytest.mark.slow
def test_two_processes_record_the_global_batch(tmp_path: Path) -> None:
    """torchrun on 2 gloo processes against one process: one store, its noise and trajectory those of the global batch.

    The script also finds that both processes train bit for bit as without a recorder, and that none of them waits for
    the other where the store breaks for the one that writes, or the probe for the one that does not.
    """
    from record.data_parallel import GAPS, STEPS, make_model, train

    train(make_model(), tmp_path / "one")
    train(make_model(), tmp_path / "one_gaps", products_every=GAPS)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = [Path(__file__).with_name("data_parallel.py"), tmp_path]
    done = subprocess.run([sys.executable, *launch, *script], timeout=300, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [file.read_text("utf-8") for file in tmp_path.glob("*.said")] == ["undisturbed"] * 10
    lost = re.findall(r"stopped \((\w+: .*?)\); the training goes on", done.stderr)
    assert "run.zarr has disappeared" in lost.pop(0), done.stderr
    assert sorted(lost) == ["ArithmeticError: no batch", "RunError: the probe failed in another process"]
    assert read_attributes(tmp_path / "probe")["committed"]["step"] == STEPS // 2
    for end in ("", "_gaps"):
        one, two = (open_run(tmp_path / f"{name}{end}").compute() for name in ("one", "two"))
        assert (two.sizes["step"], two.sizes["probe"]) == (STEPS, STEPS // 2)
        assert two.attrs["state"] == "finished"
        assert np.isnan(two["gradient_squared"]).any(dim="layer").sum() == (2 if end else 0)
        compare_runs(one, two, rtol=1e-5)
        assert not defects(tmp_path / f"two{end}")
