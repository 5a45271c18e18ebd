"""The loop's choices: micro-batches, precision, augmentation, schedules, optimizers."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")

from thermodl import cli  # noqa: E402
from thermodl.record.augment import augment  # noqa: E402
from thermodl.record.settings import SettingsError, make_settings  # noqa: E402
from thermodl.record.store import open_run  # noqa: E402
from thermodl.record.train import learning_rate_factor, make_optimizer, train  # noqa: E402

SMALL = {
    "steps": 6,
    "batch_size": 24,
    "evaluate_every": 0,
    "device": "cpu",
    "recorder": {"probe_every": 2, "sketch_size": 8, "snapshot_every": 0},
}


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> str:
    """120 colour images of 12×10 pixels in 3 classes."""
    arrays = {}
    for part, number in (("train", 96), ("test", 24)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (number, 12, 10, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(number) % 3
    np.savez(tmp_path / "images.npz", **arrays)  # type: ignore[arg-type]
    return str(tmp_path / "images.npz")


def recorded(folder: Path, data: str, **settings: object) -> xr.Dataset:
    """A recorded run of a few steps."""
    train(make_settings({**SMALL, "data": data, **settings}), folder)
    return open_run(folder).load()


def test_micro_batches_make_the_step_of_the_whole_batch(tmp_path: Path, images: str) -> None:
    """Without BatchNorm the loss, the gradient and the probe's gradient are those of the batch, up to rounding."""
    whole = recorded(tmp_path / "whole", images)
    parts = recorded(tmp_path / "parts", images, accumulate=4)
    assert parts.attrs["batch_size"] == 24
    for name in ("loss", "gradient_squared", "parameter_squared", "probe_loss", "noise_trace", "gradient_dot"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=2e-4, atol=1e-7, err_msg=name)
    with pytest.raises(SettingsError, match="accumulate = 5 does not divide batch_size = 24, the batch of the whole"):
        make_settings({**SMALL, "accumulate": 5})


def test_micro_batches_with_batchnorm_and_dropout(tmp_path: Path, images: str) -> None:
    """The probe leaves no trace: buffers and weights are those of a run without it."""
    settings = {"model": "efficientnet_b0", "batch_size": 8, "accumulate": 2, "steps": 3}
    run = recorded(tmp_path / "run", images, **settings)
    assert float(run["noise_trace"].sum("layer")[0]) > 0
    alone = recorded(tmp_path / "alone", images, **settings, recorder={**SMALL["recorder"], "probe_every": 0})
    np.testing.assert_array_equal(run["final_parameters"], alone["final_parameters"])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "alone")]
    assert weights[0] == weights[1]


def test_bf16_is_close_and_not_the_same(tmp_path: Path, images: str) -> None:
    """Autocast changes the forward pass by less than its precision allows; parameters stay float32."""
    exact = recorded(tmp_path / "exact", images)
    rounded = recorded(tmp_path / "rounded", images, precision="bf16")
    assert rounded.attrs["parameter_dtype"] == "float32"
    first = abs(float(rounded["loss"][0] - exact["loss"][0]))
    assert 0 < first < 2.0**-6 * float(exact["loss"][0])
    assert rounded["loss"].dtype == np.float64


MEANS = """
import torch

def means(shape, classes):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(shape[0], classes))
"""


def test_augmentation_changes_the_images_and_not_the_order(
    tmp_path: Path, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same batches and probe batches in the same order, from streams of their own; the run says so.

    With learning rate → 0 the parameters stay, so that the batch alone decides the loss: mirrored images, whose mean
    over the width is what it was, keep a loss that only sees means.
    """
    (tmp_path / "flat_models_of_a_test.py").write_text(MEANS, "utf-8")
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    still = {"learning_rate": 1e-12, "momentum": 0.0, "weight_decay": 0.0}
    plain = recorded(tmp_path / "plain", images, **{**still, "model": "flat_models_of_a_test:means"})
    flipped = recorded(
        tmp_path / "flip", images, **{**still, "model": "flat_models_of_a_test:means", "augmentation": "flip"}
    )
    np.testing.assert_allclose(flipped["loss"], plain["loss"], rtol=1e-5)
    np.testing.assert_allclose(flipped["probe_loss"], plain["probe_loss"], rtol=1e-5)
    assert (plain.attrs["augmentation"], flipped.attrs["augmentation"]) == ("none", "flip")
    assert flipped.attrs["settings"]["augmentation"] == "flip"
    seen = recorded(tmp_path / "cnn-plain", images, **still)
    changed = recorded(tmp_path / "cnn-flip", images, **{**still, "augmentation": "flip"})
    assert (seen["loss"] != changed["loss"]).all()
    assert (seen["probe_loss"] != changed["probe_loss"]).all()
    # A run without probes draws the same changes for its steps.
    alone = {**SMALL["recorder"], "probe_every": 0}
    unprobed = recorded(tmp_path / "unprobed", images, **{**still, "augmentation": "flip", "recorder": alone})
    np.testing.assert_array_equal(unprobed["loss"], changed["loss"])


def test_augmented_pixels() -> None:
    """Every image is a mirrored or moved copy of its own, at the stated rates, black where nothing is left."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(1, 256, (4000, 2, 8, 16), generator=generator).to(torch.uint8)
    assert augment(images, "none", generator) is images
    flipped = augment(images, "flip", generator)
    same = (flipped == images).flatten(1).all(1)
    assert ((flipped == images.flip(-1)).flatten(1).all(1) | same).all()
    assert float(same.float().mean()) == pytest.approx(0.5, abs=0.04)
    moved = augment(images, "crop-flip", generator)
    assert moved.shape == images.shape
    assert moved.dtype == torch.uint8
    padded = torch.nn.functional.pad(images, (2, 2, 1, 1))
    found = torch.zeros(len(images), dtype=torch.int64)
    for source in (padded, padded.flip(-1)):
        for top in range(3):
            for left in range(5):
                found += (moved == source[:, :, top : top + 8, left : left + 16]).flatten(1).all(1)
    assert (found == 1).all()
    black = (moved[:, :, 0] == 0).flatten(1).all(1).float().mean()
    assert float(black) == pytest.approx(1 / 3, abs=0.04)


def test_schedules() -> None:
    """The factors where they are known: at the start, the turning points and the end."""

    def factors(name: str) -> list[float]:
        settings = make_settings({"schedule": name, "steps": 400})
        return [learning_rate_factor(settings, step) for step in range(400)]

    assert factors("constant") == [1.0] * 400
    assert factors("step") == [1.0] * 200 + [0.1] * 100 + [0.01] * 100
    cosine = factors("cosine")
    assert (cosine[0], cosine[200]) == (1.0, pytest.approx(0.5))
    warm = factors("warmup-cosine")
    assert (warm[0], warm[19], warm[20], warm[210]) == (1 / 20, 1.0, 1.0, pytest.approx(0.5))
    assert 0 < warm[-1] < 1e-4
    assert learning_rate_factor(make_settings({"schedule": "warmup-cosine", "steps": 1}), 0) == 1.0


OPTIMIZERS = {name for name in dir(torch.optim) if isinstance(getattr(torch.optim, name), type)}
# Muon takes matrices only, and this model has vectors too.
UNFIT = {"LBFGS", "SparseAdam", "Muon", "Optimizer"}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_trains_or_says_why_not(name: str) -> None:
    """A step changes the parameters, or one sentence names what is in the way."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    settings = make_settings({"optimizer": name, "weight_decay": 0.0})
    if name in UNFIT:
        with pytest.raises(SettingsError, match=name):
            make_optimizer(model, settings)
        return
    optimizer = make_optimizer(model, settings)
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.ones(5, 3)).square().mean().backward()
    optimizer.step()
    assert any((p != b).any() for p, b in zip(model.parameters(), before, strict=True))


def test_an_optimizer_without_weight_decay() -> None:
    """The default of another optimizer's setting is not taken in silence."""
    with pytest.raises(SettingsError, match="Rprop has no weight decay; add --weight-decay 0"):
        make_optimizer(torch.nn.Linear(2, 2), make_settings({"optimizer": "Rprop"}))


def test_help_and_errors_describe_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """What a setting means stands in `--help` and beside a wrong value."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["record", "--help"])
    assert stop.value.code in (0, None)
    printed = capsys.readouterr().out
    for text in ("  accumulate = 1\n", '  precision = "float32"\n', "equal micro-batches"):
        assert text in printed
    with pytest.raises(SettingsError, match=r"precision = 'fp8': .*'float32' or 'bf16' \(of the forward pass; bf16 is"):
        make_settings({"precision": "fp8"})
    with pytest.raises(SettingsError, match=r"test_fraction = 1: .*less than 1 \(part of each class"):
        make_settings({"test_fraction": 1})


def test_torch_load_reads_weights_only() -> None:
    """No pickled code is ever run: every `torch.load` says `weights_only=True`."""
    root = Path(__file__).parents[2]
    for path in (p for folder in ("record", "analyze", "viewer", "data") for p in (root / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path
            if isinstance(node, ast.ImportFrom) and node.module == "torch":
                assert "load" not in [name.name for name in node.names], path
