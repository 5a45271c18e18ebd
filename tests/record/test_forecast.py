"""What a forecast says without torch is what a recording holds."""

import sys

import pytest

from thermodl.record.forecast import Size, entry_bytes, model_size, planned_entries
from thermodl.record.settings import make_settings

RECORDER = {"moments_window": 2, "curvature_every": 1, "snapshot_every": 2, "probe_every": 2, "per_sample_every": 2,
            "sketch_size": 8}  # fmt: skip


@pytest.mark.parametrize("data", ["fashion-mnist-10k", "mnist", "fashion-mnist", "cifar10", "cifar100"])
@pytest.mark.parametrize("model", ["cnn", "mlp"])
@pytest.mark.parametrize("image_size", [None, 16])
def test_sizes_of_the_small_models(model: str, data: str, image_size: int | None) -> None:
    """Those of the models themselves."""
    pytest.importorskip("torch")
    from thermodl.record.models import make_model

    classes = 100 if data == "cifar100" else 10
    channels, pixels = (3, 32) if data.startswith("cifar") else (1, 28)
    shape = (channels, image_size or pixels, image_size or pixels)
    parameters = [parameter.numel() for parameter in make_model(model, shape, classes).parameters()]
    size = model_size(make_settings({"model": model, "data": data, "image_size": image_size}))
    assert size == Size(sum(parameters), len(parameters), {"cnn": 4, "mlp": 3}[model])


def test_other_models_and_data_have_no_known_size() -> None:
    """They are asked for, not guessed."""
    assert model_size(make_settings({"model": "resnet18"})) is None
    assert model_size(make_settings({"data": "photos.zip"})) is None


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"momentum": 0.0},
        {"optimizer": "Adam"},
        {"clip_norm": 1.0, "accumulate": 2, "evaluate_every": 2},
        {"recorder": {"products_every": 2}},
    ],
)
def test_entries_and_bytes_are_those_of_a_recording(table: dict, tmp_path) -> None:
    """For every channel of a run that is recorded."""
    pytest.importorskip("torch")
    from thermodl.record.format import GROWING, growing_dimension
    from thermodl.record.store import open_run
    from thermodl.record.train import train

    table = {"steps": 5, "batch_size": 4, "device": "cpu", "checkpoint_every": 0, "evaluate_every": 0} | table
    settings = make_settings(table | {"recorder": RECORDER | table.get("recorder", {})})
    train(settings, tmp_path / "run")
    run = open_run(tmp_path / "run").drop_vars(["layer_group", "layer_size", "layer_optimizer_group"], errors="ignore")
    size = model_size(settings)
    assert size
    entries, each = planned_entries(settings), entry_bytes(settings, size)
    for dim in GROWING:
        if dim == "curvature" and settings.optimizer != "SGD":
            assert dim not in run.sizes or not run.sizes[dim]
            continue
        assert run.sizes[dim] == entries[dim], dim
        held = sum(
            array.nbytes // array.sizes[dim]
            for name, array in run.variables.items()
            if dim in array.dims and growing_dimension(str(name)) == dim
        )
        assert held == each[dim] + (each["products"] if dim == "step" else 0), dim


@pytest.mark.parametrize(
    ("every", "steps", "count"), [(0, 5, 2), (2, 5, 4), (5, 5, 2), (200, 60, 2), ([1, 5, 9], 5, 3)]
)
def test_evaluations_are_at_both_ends_and_when_due(every, steps: int, count: int) -> None:
    """The end counts once."""
    assert planned_entries(make_settings({"evaluate_every": every, "steps": steps}))["evaluation"] == count


def test_a_forecast_needs_no_torch() -> None:
    """The viewer makes it."""
    assert "torch" not in vars(sys.modules["thermodl.record.forecast"])
