"""Runs side by side: what is drawn is what they hold, a run keeps its colour, errors are shown and not subtracted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from viewer.synthetic import write_all_results, write_run
from viewer.test_app import go_to, open_app

from thermodl.analyze.results import open_results
from thermodl.record.store import open_run
from thermodl.viewer import charts, clocks, comparison, curves, figures, tables
from thermodl.viewer.catalog import Run, read_run
from thermodl.viewer.curves import Source
from thermodl.viewer.series import Series, read_series
from thermodl.viewer.state import ViewState


@pytest.fixture(scope="module")
def runs(world):
    return [read_run(world / name) for name in ("good", "other", "no-results")]


def rows_of(figure):
    spec = figure.chart.to_dict()
    return spec, next(rows for rows in spec["datasets"].values() if "series" in rows[0])


def test_a_run_keeps_its_colour_whoever_stands_beside_it_and_no_two_look_alike():
    names = [f"run{index:03}" for index in range(100)]
    known = [Run(name, Path(name), {"started": float(index)}, "finished") for index, name in enumerate(names)]
    alone = comparison.places(["run007"], known)
    assert comparison.places(["run099", "run007", "run003"], known)["run007"] == alone["run007"]
    later = [Run("a-new-one", Path("a-new-one"), {"started": 1e9}, "running"), *known]
    assert comparison.places(["a-new-one", "run007"], later)["run007"] == alone["run007"]
    together = comparison.places([names[index] for index in range(0, 100, 10)], known)
    looks = {(place % len(charts.PALETTE), place % len(charts.DASHES)) for place in together.values()}
    assert len(looks) == 10


def test_an_estimate_is_drawn_with_its_own_error_in_its_own_colour(runs):
    results = {run.id: open_results(run.path) if run.analyzed else {} for run in runs}
    sources = comparison.sources_of(results, "temperature/temperature_noise", {run.id: run for run in runs})
    assert [source.run for source in sources] == ["good", "other"]
    state = ViewState(group="fc1")
    _, drawn = rows_of(curves.by_run(sources, "temperature_noise", ["a", "b"], ["x", "y"], "s", [3, 9], state))
    for row, source in zip(drawn, sources, strict=True):
        value, error = (float(source.data[name][3]) for name in ("temperature_noise", "temperature_noise_stderr"))
        assert (row["y"], row["high"] - row["y"]) == (pytest.approx(value), pytest.approx(error))
    spec, drawn = rows_of(curves.overlay(sources, "temperature_noise_over_time", ["a", "b"], [3, 9], state))
    assert drawn[0]["y"] == pytest.approx(float(sources[0].data["temperature_noise_over_time"][3, 0]))
    colour, dash = (spec["layer"][1]["encoding"][channel]["scale"] for channel in ("color", "strokeDash"))
    assert colour["range"] == [charts.PALETTE[3], charts.PALETTE[3]]
    assert dash["range"] == [charts.DASHES[3], charts.DASHES[4]]


def test_the_loss_is_drawn_as_the_band_of_what_was_recorded(runs):
    labels = {run.id: run.id for run in runs}
    at = comparison.places(labels, runs)
    spec, drawn = rows_of(comparison.recorded_overlay(runs, "loss", labels, at, ViewState()))
    assert len(drawn) * len(spec["layer"]) <= charts.MAX_ROWS
    for run in runs:
        loss, own = open_run(run.path)["loss"].values, [row for row in drawn if row["series"] == run.id]
        assert min(row["low"] for row in own if row["low"] is not None) == np.nanmin(loss)
        assert max(row["high"] for row in own if row["high"] is not None) == np.nanmax(loss)


def test_differences_are_taken_at_the_last_step_that_both_evaluated(tmp_path):
    runs = [read_run(write_run(tmp_path / name, steps=steps)) for name, steps in (("long", 1000), ("short", 500))]
    table = comparison.evaluations(runs, runs[0], "en").set_index("run")["test loss"]
    loss = [open_run(run.path)["test_loss"].values for run in runs]
    assert table["long (baseline)"] == f"{loss[0][-1]:.4g}"
    assert table["short"] == f"{loss[1][-1]:.4g} (Δ {loss[1][2] - loss[0][2]:+.3g} at step 400)"


def test_runs_are_sorted_by_size_where_a_setting_is_a_number(runs):
    assert comparison.sort_by(runs, ["0.1", "0.02", "—"]) == [runs[1], runs[0], runs[2]]


def test_the_page_compares_what_the_address_names(world, monkeypatch):
    query = {"run": "good", "runs": "other/../etc/no-results/good", "by": "learning_rate"}
    at = go_to(open_app(world, monkeypatch, **{**query, "runs": "other/no-results"}), "compare")
    assert at.multiselect[0].value == ["other", "no-results"]
    assert at.dataframe[0].value["setting"].tolist() == ["sampling", "learning_rate", "seed"]
    spec = json.loads(at.get("vega_lite_chart")[0].proto.spec)
    sort = spec["layer"][0]["encoding"]["color"]["sort"]
    assert sort == [f"{run} · learning_rate = {rate}" for run, rate in
                    (("other", 0.02), ("good", 0.05), ("no-results", 0.05))]  # fmt: skip
    at.selectbox(key="curve-box").select("diffusion/mean_squared_displacement").run()
    assert at.query_params["curve"] == "diffusion/mean_squared_displacement"
    assert any("Without the curve" in note.value and "no\\-results" in note.value for note in at.markdown)
    assert not go_to(open_app(world, monkeypatch, **query), "compare").exception


def test_without_a_setting_each_number_stands_above_its_run(world, monkeypatch):
    at = go_to(open_app(world, monkeypatch, run="good", runs="other"), "compare")
    chart = at.get("vega_lite_chart")[-1].proto
    x = json.loads(chart.spec)["layer"][-1]["encoding"]["x"]
    assert (x["title"], x["sort"]) == ("run", ["good", "other"])


def test_results_of_another_name_are_not_drawn_beside_those_of_this_one(tmp_path, monkeypatch):
    write_all_results(write_run(tmp_path / "one"))
    write_all_results(write_run(tmp_path / "two"), name="middle")
    at = go_to(open_app(tmp_path, monkeypatch, run="one"), "compare")
    assert at.dataframe[-1].value["noise temperature (loss)"].tolist()[1] == "—"


def test_one_run_alone_has_nothing_to_be_compared_with(tmp_path, monkeypatch):
    write_run(tmp_path / "only", steps=20)
    assert "no second readable run" in go_to(open_app(tmp_path, monkeypatch), "compare").info[0].value


def test_many_evaluations_of_several_runs_are_bands_that_lose_nothing(runs, monkeypatch):
    """As points they would be more rows than Altair takes."""
    n = 3000
    x, y = np.arange(n, dtype=float), np.random.default_rng(0).random((len(runs), n))
    rows = dict(zip([run.path for run in runs], y, strict=True))
    monkeypatch.setattr(comparison, "read_series", lambda path, _: Series(rows[path], {}))
    monkeypatch.setattr(comparison.clocks, "clock_of", lambda *_: clocks.Clock(x, x, {}, 0))
    labels = {run.id: run.id for run in runs}
    figure = comparison.recorded_overlay(runs, "test_loss", labels, comparison.places(labels, runs), ViewState())
    spec, drawn = rows_of(figure)
    assert len(drawn) * len(spec["layer"]) <= charts.MAX_ROWS
    assert "lowest to highest" in str(spec["title"])
    for run in runs:
        own = [row for row in drawn if row["series"] == run.id]
        assert min(row["low"] for row in own) == rows[run.path].min()
        assert max(row["high"] for row in own) == rows[run.path].max()


def test_values_without_a_place_on_the_axis_are_counted(tmp_path):
    """Noise time ends with the analysis that found it: at step 2,999, as for the results of an earlier recording."""
    runs = [read_run(write_all_results(write_run(tmp_path / name, steps=4000))) for name in ("one", "two")]
    labels, state = {run.id: run.id for run in runs}, ViewState(axis="noise_time")
    at = comparison.places(labels, runs)
    found = {name: comparison.recorded_overlay(runs, name, labels, at, state) for name in ("loss", "test_loss")}
    results = {run.id: open_results(run.path) for run in runs}
    for analyses in results.values():
        late = analyses["temperature"].assign_coords(window_step=analyses["temperature"]["window_step"] + 1000)
        analyses["temperature"] = late
    sources = comparison.sources_of(results, "temperature/temperature_noise_over_time", {run.id: run for run in runs})
    found["estimate"] = curves.overlay(sources, "temperature_noise_over_time", ["one", "two"], [0, 1], state)
    found["alone"] = figures.dissipation(
        [Source("one", late.rename(temperature_noise_over_time="descent_power_over_time"), runs[0].path)], state
    )[0]
    titles = {name: str(figure.chart.to_dict()["title"]) for name, figure in found.items()}
    for name, count in {"loss": "2,000", "test_loss": "10", "estimate": "20", "alone": "10"}.items():
        assert f"values without a place on this axis: {count}" in titles[name], titles[name]


def test_what_of_several_runs_cannot_be_drawn_is_counted(world):
    """Losses that are not finite, steps that a logarithmic axis cannot show, and damaged pieces."""
    runs = [read_run(world / name) for name in ("good", "truncated-chunk")]
    labels = {run.id: run.id for run in runs}
    figure = comparison.recorded_overlay(runs, "loss", labels, comparison.places(labels, runs), ViewState(scale="x"))
    title = str(figure.chart.to_dict()["title"])
    missing = sum(int((~np.isfinite(read_series(run.path, "loss").values[1:])).sum()) for run in runs)
    assert f"not measured: {missing:,}" in title
    assert "cannot show: 2" in title
    assert f"cannot be read: {read_series(runs[1].path, 'loss').unreadable:,}" in title


def test_what_is_offered_first_is_what_stands_for_a_run(world):
    """In the order of the pages and their tables, whatever that on disk is."""
    data = open_results(world / "good")
    turned = {name: found[sorted(found.data_vars, reverse=True)] for name, found in sorted(data.items())}
    offered = [list(comparison.numbers_on_offer({"good": results}, "en")) for results in (data, turned)]
    assert offered[0] == offered[1]
    assert offered[0][0] == "temperature/temperature_noise"
    assert (
        list(comparison.curves_on_offer([read_run(world / "good")], {"good": turned}, "en"))[5]
        == "temperature/temperature_noise_over_time"
    )


def test_only_curves_that_some_run_has_are_on_offer(tmp_path):
    run = write_run(tmp_path / "run")
    shutil.rmtree(run / "run.zarr" / "train_loss")
    offered = comparison.curves_on_offer([read_run(run)], {}, "en")
    assert "loss" in offered
    assert "train_loss" not in offered


def test_hyperparameters_that_change_while_they_are_recorded_differ(tmp_path):
    """Settings alone would be equal, and a schedule in one's own loop is in none of them."""
    pair = [read_run(write_run(tmp_path / name)) for name in ("still", "cooled")]
    assert "learning_rate over time" not in tables.comparison(pair, "en")["setting"].tolist()
    rate = zarr.open_array(pair[1].path / "run.zarr" / "learning_rate", mode="r+")
    rate[..., rate.shape[-1] // 2 :] = 0.001
    (row,) = tables.comparison([read_run(run.path) for run in pair], "en").itertuples(index=False, name=None)
    assert row == ("learning_rate over time", "—", "0.05 → 0.05 → 0.001 → 0.001 → 0.001")


def test_estimates_say_which_steps_they_are_from(world):
    runs = [read_run(world / name) for name in ("good", "other")]
    results = {run.id: open_results(run.path) for run in runs}
    table = comparison.estimates(runs, results, "good", "en")
    assert table["estimated from steps"].tolist() == ["1,000–2,999"] * 2
    assert not any("[" in str(cell) for cell in table.iloc[0])
    results["good"]["diffusion"] = results["good"]["diffusion"].assign_attrs(segment=[10, 500])
    of_diffusion = comparison.estimates(runs, results, "good", "en").iloc[0]
    assert [cell.endswith(" [10–499]") for cell in of_diffusion].count(True) == sum(
        analysis == "diffusion" for analysis, _ in tables.HEADLINES
    )


@pytest.mark.parametrize(("lang", "name"), [("en", "setting"), ("zh", "设置项")])
def test_a_run_may_be_called_as_the_column_before_it(lang, name):
    pair = [Run(run, Path(run), {"settings": {"seed": seed}}) for seed, run in enumerate((name, "other"))]
    table = tables.comparison(pair, lang)
    assert table.columns.is_unique
    assert table.iloc[0].tolist() == ["seed", "0", "1"]


@pytest.mark.parametrize(("lang", "name"), [("en", "quantity"), ("zh", "物理量")])
def test_a_group_may_be_called_as_the_column_before_it(world, lang, name):
    data = open_results(world / "good")["temperature"]
    data = data.assign_coords(group=["all", name, *data["group"].values[2:]])
    table = tables.numbers(data, ["temperature_noise"], lang)
    assert table.columns.is_unique
    assert table.columns[2] == name
