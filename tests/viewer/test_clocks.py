"""Every time axis holds what was recorded, an interval holds its steps on each, and no other is offered."""

import json

import numpy as np
import pytest
import streamlit as st
from streamlit.runtime.caching import cache_utils
from viewer.synthetic import write_all_results, write_run
from viewer.test_app import go_to, open_app

from thermodl.analyze.results import ResultsError, open_results
from thermodl.record.store import open_run
from thermodl.viewer import app, catalog, charts, clocks, figures, recorded
from thermodl.viewer.curves import Source
from thermodl.viewer.pages import layout
from thermodl.viewer.state import AXES, ViewState


def drawn(figure, column="y"):
    spec = figure.chart.to_dict()
    return spec, next(rows for rows in spec["datasets"].values() if column in rows[0] and "series" in rows[0])


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", ["loss", "noise_trace", "test_loss"])
def test_entries_lie_where_the_recording_says(world, axis, name):
    recorded = open_run(world / "good")
    clock = clocks.clock_of(world / "good", name, axis)
    if axis == "noise_time":
        known = open_results(world / "good")["ageing"]["noise_time"]
        x = np.interp(recorded["step"], known["clock_step"], known)
    else:
        x = recorded[axis].values.astype(float)
    if axis == "epoch":
        x = x + recorded["epoch_position"].values
    np.testing.assert_allclose(clock.x, x[clock.steps.astype(int)])


@pytest.mark.parametrize("axis", AXES)
def test_an_interval_is_the_same_steps_on_every_axis(world, axis):
    state = ViewState(axis=axis, steps="1000-1999")
    whole = clocks.clock_of(world / "good", "loss", axis)
    found = recorded.training(world / "good", state)
    loss = open_run(world / "good")["loss"].values[1000:2000]
    spec, rows = drawn(found[0])
    assert "1,000 values" in str(spec["title"])
    assert len(rows) <= charts.MAX_ROWS // 3
    assert rows[0]["x"] >= whole.x[1000] - 1e-9
    assert rows[-1]["x"] <= whole.x[1999] + 1e-9
    assert min(row["low"] for row in rows if row["low"] is not None) == np.nanmin(loss)
    low, high = whole.x[[1000, 1999]]
    assert clocks.steps_between(whole, low, high) == (1000, 1999)
    _, evaluated = drawn(found[1])
    assert len(evaluated) == 2 * 5


@pytest.mark.parametrize("axis", AXES)
def test_windows_of_an_analysis_lie_on_every_axis_and_in_the_interval(world, axis):
    data = open_results(world / "good")["dissipation"]
    source = Source("good", data, world / "good")
    state = ViewState(axis=axis, steps="0-1500")
    _, rows = drawn(figures.dissipation([source], state)[0])
    steps = data["window_step"].values
    assert len(rows) == (steps <= 1500).sum()
    if axis != "sgd_time":  # which the results hold themselves
        np.testing.assert_allclose(
            [row["x"] for row in rows], clocks.places(world / "good", axis, steps[steps <= 1500])
        )


def test_an_axis_that_was_not_recorded_is_not_offered_and_says_why(tmp_path, monkeypatch):
    import shutil

    folder = write_run(tmp_path / "plain", steps=60)
    shutil.rmtree(folder / "run.zarr" / "wall_time")
    assert clocks.on_offer(folder) == ("step", "sgd_time", "epoch")
    at = open_app(tmp_path, monkeypatch, axis="wall_time")
    box = at.selectbox(key="axis")
    assert box.value == "step"
    assert not {"wall time", "noise time"} & set(box.options)
    assert "wall time: not recorded" in box.help
    assert "noise time: it comes out of the analysis of ageing" in box.help


def test_noise_time_is_that_of_this_recording_only(tmp_path):
    """It goes as far as its analysis; results of another recording, or damaged ones, have no say."""
    folder = write_all_results(write_run(tmp_path / "grown", steps=4000), name="late")
    assert "noise_time" in clocks.on_offer(folder)
    known = np.isfinite(clocks.clock_of(folder, "loss", "noise_time").x)
    assert known[:3000].all()
    assert not known[3000:].any()
    folder = write_all_results(write_run(tmp_path / "damaged"))
    stored = (folder / "results.zarr" / "default" / "ageing" / "noise_time").rglob("*")
    next(entry for entry in stored if entry.is_file() and entry.name != "zarr.json").write_bytes(b"?")
    assert "noise_time" not in clocks.on_offer(folder)
    folder = write_all_results(write_run(tmp_path / "anew"))
    metadata = folder / "run.zarr" / "zarr.json"
    attributes = json.loads(metadata.read_text())
    attributes["attributes"]["started"] += 1
    metadata.write_text(json.dumps(attributes))
    assert "noise_time" not in clocks.on_offer(folder)


def test_noise_time_that_could_not_be_read_once_is_there_at_the_next_look(tmp_path, monkeypatch):
    """Results may be read in the instant at which they are being written."""
    folder = write_all_results(write_run(tmp_path / "run", steps=3000))

    def busy(*_):
        raise ResultsError("it is being written")

    # A cache keeps the timer that it was made with.
    st.cache_data.clear()
    elapsed = [0.0]
    monkeypatch.setattr(cache_utils, "TTLCACHE_TIMER", lambda: elapsed[0])
    with monkeypatch.context() as once:
        once.setattr(clocks, "open_result", busy)
        at = open_app(tmp_path, monkeypatch, run="run")
        assert "noise time" not in at.selectbox(key="axis").options
    assert "noise_time" in clocks.on_offer(folder)
    elapsed[0] = app._LOOK_AGAIN_SECONDS + 1
    assert "noise time" in at.run().selectbox(key="axis").options
    monkeypatch.undo()
    st.cache_data.clear()


def test_what_a_logarithmic_axis_drops_is_counted_before_it_is_put_into_buckets(world):
    spec, rows = drawn(recorded.training(world / "good", ViewState(scale="xy"))[0])
    assert any(note.endswith("cannot show: 1") for note in spec["title"]["text"]), "step 0"
    assert {layer["encoding"]["x"]["scale"]["type"] for layer in spec["layer"]} == {"log"}
    assert sum(row["x"] < 30 for row in rows) == 29, "the first decades keep their points"


@pytest.mark.parametrize("axis", AXES)
def test_typed_steps_and_the_reset_button_follow_into_the_address(world, monkeypatch, axis):
    at = go_to(open_app(world, monkeypatch, run="good", axis=axis, steps="100-900"), "overview")
    assert (at.number_input(key="first-step").value, at.number_input(key="last-step").value) == (100, 900)
    at.number_input(key="first-step").set_value(500).run()
    assert at.query_params["steps"] == "500-900"
    assert any("steps 500 to 900" in note.value for note in at.markdown)
    shaded = at.get("vega_lite_chart")[0].proto
    assert "interval" in json.loads(shaded.spec)["params"][0]["name"]
    at.button(key="all-steps").click().run()
    assert "steps" not in at.query_params
    assert not [button for button in at.button if button.key == "all-steps"]


def test_an_interval_beyond_the_end_of_a_run_breaks_nothing(world, monkeypatch):
    for steps in ("900000-900001", "2999-5000000", "0-1", "5-2", "x"):
        at = go_to(open_app(world, monkeypatch, run="good", steps=steps), "overview")
        assert not at.exception, (steps, at.exception[0].stack_trace)


def test_a_chart_without_values_in_the_interval_is_left_out(world):
    found = [figure.id for figure in recorded.training(world / "good", ViewState(steps="8-95"))]
    assert found == ["training-loss", "training-learning_rate"]
    data = open_results(world / "good")["dissipation"]
    found = figures.dissipation([Source("good", data)], ViewState(steps="1000000-1000001"))
    assert [figure.id for figure in found] == ["dissipation-group"]


def test_the_chosen_group_stands_out_and_the_others_fade(world):
    data = open_results(world / "good")["dissipation"]
    found = {figure.id: figure for figure in figures.dissipation([Source("good", data)], ViewState(group="fc1"))}
    spec, rows = drawn(found["dissipation-group"])
    assert {row["x"] for row in rows if row["chosen"]} == {"fc1"}
    point = spec["layer"][1]["encoding"]
    assert (point["size"]["condition"]["value"], point["size"]["value"]) == (110, 45)
    assert point["opacity"]["value"] == 0.3
    assert found["dissipation-group"].groups["all layers"] == "all"
    spec = found["dissipation-seed"].chart.to_dict()
    behind = {row["series"] for rows in spec["datasets"].values() for row in rows}
    assert {"conv1", "conv2", "fc2"} < behind
    assert "grey: the other groups" in spec["title"]["text"]


def test_of_two_runs_colour_tells_the_run_and_dash_the_quantity(world):
    data = open_results(world / "good")["dissipation"]
    sources = [Source("good", data, place=2), Source("other", data, place=4)]
    encoding = figures.dissipation(sources, ViewState())[1].chart.to_dict()["layer"][1]["encoding"]
    colours, dashes = encoding["color"]["scale"]["range"], encoding["strokeDash"]["scale"]["range"]
    assert colours == [charts.PALETTE[2]] * 2 + [charts.PALETTE[4]] * 2
    assert dashes == [charts.DASHES[0], charts.DASHES[1]] * 2


def test_of_two_runs_that_share_a_colour_the_second_moves_on(world, monkeypatch):
    """Dashes are quantities on the pages of analyses, so that colours alone must tell the runs apart."""
    runs = {name: catalog.Run(name, world / name) for name in (f"r{index}" for index in range(7))}
    monkeypatch.setattr(layout.comparison, "places", lambda *_: {"r0": 0, "r6": len(charts.PALETTE)})
    context = layout.Context(ViewState(), world, runs, runs["r0"], runs["r6"])
    own, other = (layout._place(context, runs[name]) for name in ("r0", "r6"))
    assert own % len(charts.PALETTE) != other % len(charts.PALETTE)


def test_a_view_of_a_running_run_follows_what_is_chosen_on_the_page(world, monkeypatch):
    at = go_to(open_app(world, monkeypatch, run="running"), "layers")
    at.selectbox(key="quantity-box").select("displacement_squared").run()
    assert not at.exception
    assert at.query_params["quantity"] == "displacement_squared"
