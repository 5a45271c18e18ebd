"""The noise of single samples: that of the loop over them, without a trace in the training, refused where undefined."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from tests.record.test_recorder import normalized_net  # noqa: E402
from thermodl.record import Recorder, RecorderSettings, open_run  # noqa: E402
from thermodl.record import per_sample as module  # noqa: E402
from thermodl.record.per_sample import sample_noise  # noqa: E402
from thermodl.record.settings import make_settings  # noqa: E402
from thermodl.record.train import train  # noqa: E402

EVERY = RecorderSettings(probe_every=0, per_sample_every=2, snapshot_every=0, sketch_size=4)


class Tied(nn.Module):
    """Two inputs, a module and a weight that are used twice, and a layer whose output is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out, self.idle = nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(2, 2)
        self.out.weight = nn.Parameter(self.into.weight.detach().T.clone())
        self.again, self.mirror = self.out, nn.Linear(3, 4)
        self.mirror.weight = self.into.weight

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Both."""
        return self.again(torch.tanh(self.into(x))) * scale + self.out(self.mirror(x))


@pytest.mark.parametrize("together", [1, 3, 100])
def test_equals_the_loop_over_samples(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many samples are taken together, with a tied, a frozen and an idle layer."""
    torch.manual_seed(0)
    model = Tied().double()
    model.out.bias.requires_grad_(False)
    x, scale, y = (torch.randn(7, n, dtype=torch.float64) for n in (3, 1, 3))
    parameters = [model.into.weight, model.into.bias, model.out.weight, model.out.bias, model.idle.weight]
    free = sum(
        p.numel()
        for p in model.parameters()
        if p.requires_grad and p is not model.idle.bias and p is not model.mirror.bias
    )
    before = list(model.parameters())
    monkeypatch.setattr(module, "_ELEMENTS", together * free)
    traces, count = sample_noise(model, parameters, lambda: ((x, scale), y), F.mse_loss, seed=0)
    # A module that is used twice holds its own parameters afterwards.
    assert all(one is other for one, other in zip(model.parameters(), before, strict=True))
    rows: list[list[torch.Tensor]] = []
    for i in range(7):
        model.zero_grad()
        F.mse_loss(model(x[i : i + 1], scale[i : i + 1]), y[i : i + 1]).backward()
        rows.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters])
    slow = [torch.stack(column).var(0).sum().item() for column in zip(*rows, strict=True)]
    assert count == 7
    assert min(slow[:3]) > 0
    np.testing.assert_allclose(traces.tolist(), slow, rtol=1e-12, atol=1e-15)


def test_in_a_recording_it_does_not_disturb(tmp_path: Path) -> None:
    """With dropout and keywords as inputs: bit for bit the plain loop, at its steps."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
    recorded = copy.deepcopy(plain)
    x, y = torch.randn(16, 5), torch.randint(2, (16,))

    def run(model: nn.Module, record: bool) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        torch.manual_seed(1)
        drawing = {"samples": lambda: ({"input": torch.randn(9, 5)}, torch.randint(2, (9,))),
                   "sample_loss": F.cross_entropy}  # fmt: skip
        recorder = Recorder(model, optimizer, tmp_path / "run", settings=EVERY, **drawing) if record else None
        for _ in range(7):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        if recorder:
            recorder.close()

    run(plain, record=False)
    run(recorded, record=True)
    for one, other in zip(plain.parameters(), recorded.parameters(), strict=True):
        assert torch.equal(one, other)
    run_ = open_run(tmp_path / "run")
    np.testing.assert_array_equal(run_["per_sample_step"], [0, 2, 4, 6])
    np.testing.assert_array_equal(run_["per_sample_count"], 9)
    assert float(run_["per_sample_noise_trace"].min()) > 0


@pytest.mark.parametrize(
    ("make", "samples", "says"),
    [
        (normalized_net, 8, "BatchNorm"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4), _Branch()), 8, "data-dependent"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), 1, "a batch of 1"),
    ],
)
def test_refused_with_the_reason(
    make: Callable[[], nn.Module], samples: int, says: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """What mixes samples, branches on them or has one only ends this channel, and the recording goes on."""
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images = torch.randn(8, 1, 8, 8)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        return images[:samples], torch.zeros(samples, dtype=torch.long)

    with Recorder(model, optimizer, tmp_path / "run", samples=draw, sample_loss=F.cross_entropy, settings=EVERY) as run:
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(model(images), torch.zeros(8, dtype=torch.long)).backward()
            optimizer.step()
    assert not run.lost
    assert [says in str(warning.message) for warning in recwarn.list] == [True]
    stored = open_run(tmp_path / "run")
    assert says in stored.attrs["not_recorded"]["per_sample_noise_trace"]
    assert stored.sizes["step"] == 4


class _Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Another function for samples with a positive sum."""
        return 2 * x if x.sum() > 0 else x


def test_agrees_with_the_probe(tmp_path: Path) -> None:
    """In the built-in training tr C₁/b is the noise of batches that are drawn with replacement."""
    recorder = {"probe_every": 1, "per_sample_every": 1, "snapshot_every": 0, "sketch_size": 8}
    settings = {"model": "mlp", "steps": 60, "batch_size": 16, "sampling": "replacement", "evaluate_every": 0,
                "learning_rate": 1e-6, "recorder": recorder}  # fmt: skip
    train(make_settings(settings), tmp_path / "run")
    run = open_run(tmp_path / "run")
    single = run["per_sample_noise_trace"].sum("layer") / 16
    probed = run["noise_trace"].sum("layer")
    spread = float(np.hypot(single.std() / 60**0.5, probed.std() / 60**0.5))
    assert spread < 0.1 * float(probed.mean())
    assert abs(float(single.mean() - probed.mean())) < 4 * spread


def test_parameters_outside_of_the_model_are_refused() -> None:
    """Their single gradients cannot be told; nor is there anything to tell where all is frozen."""
    model, head = nn.Linear(3, 2), nn.Linear(2, 2)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(4, 3), torch.zeros(4, dtype=torch.long)

    def through_head(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(head(output), targets)

    for parameters in ([*model.parameters(), *head.parameters()], [p.detach() for p in model.parameters()]):
        with pytest.raises(ValueError, match="parameters of the model, and no others"):
            sample_noise(model, parameters, draw, through_head, seed=0)
    traces, _ = sample_noise(model, list(model.parameters()), draw, through_head, seed=0)
    assert not traces.requires_grad
