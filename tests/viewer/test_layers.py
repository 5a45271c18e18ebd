"""The map of layers: every cell is the mean of its stretch, nothing is lost in silence, and a layer is found again."""

import json

import numpy as np
import pytest
from viewer.synthetic import write_run
from viewer.test_app import go_to, open_app

from thermodl.record.store import open_run
from thermodl.viewer import layers
from thermodl.viewer.catalog import read_run
from thermodl.viewer.series import grid
from thermodl.viewer.state import ViewState


def cells_of(figure):
    spec = figure.chart.to_dict()
    return spec, next(rows for rows in spec["datasets"].values() if "layer" in rows[0])


@pytest.mark.parametrize(("n", "buckets"), [(3, 10), (10, 10), (1000, 7), (997, 100)])
def test_cells_are_the_means_of_their_stretches(n, buckets):
    rng = np.random.default_rng(n)
    x, rows = np.arange(n) * 0.1, rng.random((4, n))
    rows[1, n // 2] = np.nan
    cells = grid(x, rows, buckets)
    assert cells["row"].value_counts().max() <= max(buckets + 1, 2)
    for cell in cells.itertuples():
        inside = rows[cell.row, (x >= cell.left) & (x < cell.right)]
        assert len(inside) == cell.count + cell.missing
        if cell.count:
            assert cell.mean == pytest.approx(np.nanmean(inside))
            assert (cell.low, cell.high) == (np.nanmin(inside), np.nanmax(inside))
    assert int(cells["count"].sum()) == 4 * n - 1
    assert int(cells["missing"].sum()) == 1


def test_no_steps_and_one_step_have_no_stretch_to_divide():
    assert len(grid(np.empty(0), np.empty((2, 0)))) == 0
    assert grid(np.array([5.0]), np.array([[1.0], [2.0]]))["mean"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("axis", ["step", "sgd_time"])
@pytest.mark.parametrize("name", ["gradient_squared", "noise_trace"])
def test_the_map_draws_what_was_recorded(world, name, axis):
    run = read_run(world / "good")
    spec, drawn = cells_of(layers.layer_map(run.path, run.attributes, name, ViewState(axis=axis)))
    recorded = open_run(run.path)
    at = recorded[axis].values[recorded["probe_step"].values] if name == "noise_trace" else recorded[axis].values
    for cell in drawn[::97]:
        values = recorded[name].sel(layer=cell["layer"]).values[(at >= cell["left"]) & (at < cell["right"])]
        assert cell["mean"] == pytest.approx(values.mean())
    colour = spec["layer"][0]["encoding"]["color"]["scale"]
    assert (colour["type"], colour["scheme"]) == ("log", "viridis")
    assert spec["layer"][0]["encoding"]["y"]["sort"] == recorded["layer"].values.tolist()


def test_what_has_no_colour_is_counted(tmp_path):
    run = read_run(write_run(tmp_path / "few", steps=100))
    spec, drawn = cells_of(layers.layer_map(run.path, run.attributes, "displacement_squared", ViewState()))
    assert len(drawn) == 8 * 99
    assert "buckets with a mean ≤ 0: 8" in spec["title"]["text"][1]


def test_the_layer_of_the_address_is_drawn_and_a_choice_stays(world, monkeypatch):
    at = go_to(open_app(world, monkeypatch, run="good", layer="fc1.bias", quantity="displacement_squared"), "layers")
    assert "fc1\\.bias" in at.subheader[1].value
    at.selectbox(key="layer-box").select("conv2.weight").run()
    at = go_to(go_to(at, "overview"), "layers")
    assert at.selectbox(key="layer-box").value == "conv2.weight"
    assert (at.query_params["layer"], at.query_params["quantity"]) == ("conv2.weight", "displacement_squared")


@pytest.mark.parametrize("name", ["a](javascript:x) $b$ <script>", "层\u202e"])
def test_a_hostile_name_of_a_layer_stays_a_name(tmp_path, monkeypatch, name):
    folder = write_run(tmp_path / "run", steps=60)
    metadata = folder / "run.zarr" / "zarr.json"
    content = json.loads(metadata.read_bytes())
    content["attributes"]["layers"][0]["name"] = name
    metadata.write_text(json.dumps(content))
    at = go_to(open_app(tmp_path, monkeypatch), "layers")
    assert not at.exception
    assert not any(mark in at.subheader[1].value.replace("\\" + mark, "") for mark in "[]$<>")


def test_layers_that_the_run_does_not_name_are_not_drawn(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", steps=60)
    metadata = folder / "run.zarr" / "zarr.json"
    content = json.loads(metadata.read_bytes())
    one = {"name": "one", "group": "conv1", "size": 80, "optimizer_group": 0}
    for broken, words in (([], "cannot be told apart"), ([one], "can be shown")):
        content["attributes"]["layers"] = broken
        metadata.write_text(json.dumps(content))
        at = go_to(open_app(tmp_path, monkeypatch), "layers")
        assert not at.exception
        assert words in at.info[0].value


@pytest.mark.parametrize(
    ("names", "steps", "words"),
    [(["same"] * 8, "", "cannot be told apart"), (None, "5000-6000", "Nothing of this quantity can be shown")],
)
def test_why_there_is_no_map_is_told_as_it_is(tmp_path, monkeypatch, names, steps, words):
    folder = write_run(tmp_path / "good")
    if names:
        metadata = folder / "run.zarr" / "zarr.json"
        content = json.loads(metadata.read_bytes())
        for layer, name in zip(content["attributes"]["layers"], names, strict=True):
            layer["name"] = name
        metadata.write_text(json.dumps(content))
    else:
        monkeypatch.setattr(layers, "layer_map", lambda *_: None)
    at = go_to(open_app(tmp_path, monkeypatch, run="good", steps=steps), "layers")
    assert any(words in box.value for box in at.info)
    assert not any("recorded nothing" in box.value for box in at.info)
