"""Every chart: titled axes, true logarithms, few rows, both languages, nothing dropped in silence."""

import numpy as np
import pandas as pd
import pytest
from viewer.synthetic import ALL_GROUPS, write_run

from thermodl.analyze.results import open_results
from thermodl.viewer import charts, clocks, curves, figures, pictures, recorded, tables
from thermodl.viewer.curves import Figure, Source
from thermodl.viewer.series import read_series
from thermodl.viewer.state import ViewState
from thermodl.viewer.text import Text


def _all_figures(world, state, other=False):
    runs = ["good", "other"] if other else ["good"]
    results = {run: open_results(world / run) for run in runs}
    found = recorded.training(world / "good", state)
    for name, draw in figures.ANALYSES.items():
        found += draw([Source(run, results[run][name]) for run in runs], state)
    return found


def _encodings(spec):
    for layer in spec["layer"]:
        yield from layer.get("encoding", {}).items()


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("axis", ["step", "sgd_time"])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_chart_is_titled_small_and_in_one_language(world, lang, axis, other):
    found = _all_figures(world, ViewState(lang=lang, axis=axis, group="fc1"), other)
    assert len(found) >= 16
    assert len({figure.id for figure in found}) == len(found)
    for figure in found:
        spec = figure.chart.to_dict()
        positions = [value for key, value in _encodings(spec) if key in ("x", "y") and "field" in value]
        titles = [value["title"] for value in positions if value["field"] != "at"]
        assert titles
        assert all(titles)
        if lang == "zh":
            assert all(charts_has_cjk(title) for title in titles), (figure.id, titles)
        rows = {name: len(data) for name, data in spec["datasets"].items()}
        default = spec.get("data", {}).get("name")
        assert sum(rows[layer.get("data", {}).get("name", default)] for layer in spec["layer"]) <= charts.MAX_ROWS


def charts_has_cjk(text):
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)


def test_displacement_is_drawn_on_true_log_axes_with_a_rule_at_one_epoch(world):
    data = open_results(world / "good")["diffusion"]
    spec = figures.diffusion([Source("good", data)], ViewState())[0].chart.to_dict()
    types = {key: value["scale"]["type"] for key, value in _encodings(spec) if "scale" in value and key in ("x", "y")}
    assert types == {"x": "log", "y": "log"}
    assert [{"at": 156.0, "name": "one epoch"}] in spec["datasets"].values()


def test_independent_draws_have_no_rule_at_one_epoch(world):
    data = open_results(world / "other")["diffusion"]
    spec = figures.diffusion([Source("other", data)], ViewState())[0].chart.to_dict()
    assert not any(row[0].get("name") == "one epoch" for row in spec["datasets"].values())


def test_a_log_axis_says_how_many_values_it_cannot_show():
    frame = pd.DataFrame({"x": [0.0, 1, 2, 3], "y": [1.0, -1, 2, np.nan], "low": 0.5, "high": 3.0, "series": "a"})
    chart = charts.curves(frame, lang="en", x_title="x", y_title="y", log_x=True, log_y=True)
    assert chart.to_dict()["title"]["text"] == [
        "values not defined or not measured, and left out: 1",
        "values ≤ 0, which a logarithmic axis cannot show: 2",
    ]
    drawn = next(data for data in chart.to_dict()["datasets"].values() if "series" in data[0])
    assert len(drawn) == 2


def test_a_bar_that_a_log_axis_cuts_keeps_its_ends():
    """What is drawn ends at the axis; the rows that are taken along, and the pointer, have the true interval."""
    frame = pd.DataFrame({"x": ["a", "b"], "y": [3.0, 1.0], "low": [2.0, -1.0], "high": [4.0, 3.0], "series": "D"})
    chart = charts.bars(frame, lang="en", x_title="group", y_title="D", log_y=True)
    (rule,) = (layer for layer in chart.to_dict()["layer"] if layer["mark"]["type"] == "rule")
    assert rule["encoding"]["y"]["field"] == "bottom"
    rows = pictures.rows(Figure("d", Text("D", "D"), chart))
    assert rows["low"].tolist() == [2.0, -1.0]
    assert "bottom" not in rows


def test_layers_of_different_clocks_have_no_chart_on_one(world):
    data = open_results(world / "good")["ageing"]
    lost = data.assign(lag_on_noise_time=data["lag_on_noise_time"] * np.nan)
    drawn, without = (
        [figure.id for figure in figures.of_analysis("ageing", [Source("good", one)], ViewState())]
        for one in (data, lost)
    )
    assert [name for name in drawn if name not in without] == ["ageing-noise_time"]


def test_a_run_that_a_chart_of_two_leaves_out_is_named(world):
    data = open_results(world / "good")["entropy_production"]
    sources = [Source("good", data), Source("other", data.drop_vars(["mode_heat", "mode_heat_stderr"]))]
    found = {figure.id: figure for figure in figures.of_analysis("entropy_production", sources, ViewState())}
    notes = [figure.chart.to_dict().get("title", {}).get("text", []) for figure in found.values()]
    assert sum("not there for other" in lines for lines in notes) == 1


def test_the_group_of_the_sidebar_is_the_one_drawn(world):
    data = open_results(world / "good")["temperature"]
    for index, group in enumerate(ALL_GROUPS):
        spec = figures.temperature([Source("good", data)], ViewState(group=group))[0].chart.to_dict()
        rows = next(rows for rows in spec["datasets"].values() if "series" in rows[0])
        assert rows[0]["y"] == pytest.approx(float(data["temperature_noise_over_time"][index, 0]))


def test_results_of_another_version_draw_what_they_have(world):
    data = open_results(world / "good")["temperature"].drop_vars(["temperature_variance", "kinetic_over_noise"])
    assert len(figures.temperature([Source("good", data)], ViewState())) == 2


def test_charts_never_import_streamlit():
    import subprocess
    import sys

    code = "import sys, thermodl.viewer.report, thermodl.viewer.cli; sys.exit('streamlit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_jumps_stand_under_their_places_in_the_loss_on_every_axis_and_in_the_interval(world):
    sources = [Source("good", open_results(world / "good")["events"], world / "good")]
    for axis in ("step", "sgd_time", "epoch"):
        loss, jumps = (figure.chart.to_dict() for figure in figures.events(sources, ViewState(axis=axis)))
        marks = sorted(row["at"] for rows in loss["datasets"].values() for row in rows if "at" in row)
        places = sorted(row["x"] for rows in jumps["datasets"].values() for row in rows if "x" in row)
        assert marks == places, axis
        windows = [row["x"] for rows in loss["datasets"].values() for row in rows if "at" not in row]
        domain = next(part["scale"]["domain"] for key, part in _encodings(jumps) if key == "x" and "scale" in part)
        assert domain == [min(windows), max(windows)], axis
        # Where the recording has them, also before the middle of the first window.
        steps = sources[0].data["event_step"].values
        assert places == sorted(clocks.places(world / "good", axis, steps).tolist()), axis
        kinds = np.bincount(sources[0].data["event_kind"].values.astype(int), minlength=len(curves.EVENT_KINDS))
        counts = ", ".join(f"{kind.en}: {n}" for kind, n in zip(curves.EVENT_KINDS, kinds, strict=True) if n)
        assert f"grey dashes: events ({counts})" in loss["title"]["text"]
    (loss,) = figures.events(sources, ViewState(steps="1-500", lang="zh"))
    assert (loss.id, loss.chart.to_dict()["title"]["text"][-1]) == ("events-loss", "所示步数范围内没有突变事件")


def test_jumps_of_two_runs_have_the_colour_of_their_run_and_the_shape_of_their_kind(world):
    data = open_results(world / "good")["events"]
    sources = [Source(run, data, world / "good", place) for run, place in (("one", 3), ("two", 1))]
    jumps = figures.events(sources, ViewState())[1].chart.to_dict()
    scales = {key: part["scale"] for key, part in _encodings(jumps) if key in ("color", "shape")}
    kinds = [curves.EVENT_KINDS[kind].en for kind in sorted(set(data["event_kind"].values))]
    assert len(kinds) > 1
    assert scales["color"]["domain"] == [f"{run} · {kind}" for run in ("two", "one") for kind in kinds]
    assert scales["color"]["range"] == [charts.PALETTE[place] for place in (1, 3) for _ in kinds]
    assert scales["shape"]["range"][: len(kinds)] == scales["shape"]["range"][len(kinds) :]
    assert len(set(scales["shape"]["range"])) == len(kinds)


def test_a_value_between_unknown_ones_is_a_point():
    """A line needs two ends: of an array that is measured at every tenth step nothing would be seen."""
    x = np.arange(100.0)
    y = np.where(x % 10 == 0, 1 + x, np.nan)
    y[20:22] = 5.0
    frame = pd.DataFrame({"x": x, "y": y, "low": y, "high": y, "series": "a"})
    spec = charts.curves(frame, lang="en", x_title="x", y_title="y", points=False).to_dict()
    (dots,) = [layer for layer in spec["layer"] if layer["mark"]["type"] == "point"]
    lone = [row["x"] for row in spec["datasets"][dots["data"]["name"]]]
    assert lone == [0.0, 10.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]
    whole = charts.curves(frame.assign(y=1.0), lang="en", x_title="x", y_title="y", points=False).to_dict()
    assert not any(layer["mark"]["type"] == "point" for layer in whole["layer"])


def test_a_value_between_unknown_ones_is_a_point_in_grey_too():
    """Of layers that are measured at every tenth step those behind would not be seen."""
    x = np.arange(30.0)
    y = np.where(x % 10 == 0, 1 + x, np.nan)
    frame, behind = (pd.DataFrame({"x": x, "y": y, "low": y, "high": y, "series": name}) for name in ("a", "b"))
    spec = charts.curves(frame, lang="en", x_title="x", y_title="y", points=False, others=behind).to_dict()
    dots = [layer for layer in spec["layer"] if layer["mark"]["type"] == "point"]
    places = [[(row["series"], row["x"]) for row in spec["datasets"][layer["data"]["name"]]] for layer in dots]
    assert places == [[(name, 0.0), (name, 10.0), (name, 20.0)] for name in ("b", "a")]


def test_losses_that_are_not_finite_are_told_of_short_runs_too(world):
    """Those of the middle of the run, where each value has a bucket of its own."""
    middle = len(read_series(world / "good", "loss").values) // 2
    state = ViewState(steps=f"{middle - 50}-{middle + 49}")
    spec = recorded.training(world / "good", state)[0].chart.to_dict()
    assert "3 not finite or not measured" in str(spec["title"])


def test_the_name_of_a_level_stands_above_the_chart_where_no_data_are(world):
    data = open_results(world / "good")["temperature"]
    spec = figures.temperature([Source("good", data)], ViewState())[2].chart.to_dict()
    assert "grey dashes: the two agree: 1" in spec["title"]["text"]
    assert not any(layer["mark"]["type"] == "text" for layer in spec["layer"])


def test_what_all_names_have_before_their_colon_names_the_axis(world):
    data = open_results(world / "good")["temperature"]
    names = {"temperature_noise": "less: drift", "temperature_kinetic": "less: heat"}
    for name, words in names.items():
        data[name].attrs["long_name"] = words
    figure = curves.by_group([Source("good", data)], list(names), ViewState(), "x", Text("all", "全部"))
    spec = figure.chart.to_dict()
    assert {row["series"] for row in next(iter(spec["datasets"].values()))} == {"drift", "heat"}
    assert next(part["title"] for key, part in _encodings(spec) if key == "y") == "less (loss)"


def test_a_chart_without_any_value_is_left_out(world):
    data = open_results(world / "good")["temperature"].copy(deep=True)
    data["kinetic_over_noise"][:] = np.nan
    assert "temperature-ratio" not in [figure.id for figure in figures.temperature([Source("good", data)], ViewState())]


def test_a_long_title_of_an_upright_axis_stands_in_lines():
    frame = pd.DataFrame({"x": [1.0, 2], "y": [1.0, 2], "low": np.nan, "high": np.nan, "series": "a"})
    name = "integrated noise–response correlation"
    spec = charts.curves(frame, lang="en", x_title="x", y_title=f"{name} (parameter² loss⁻¹)").to_dict()
    assert next(part["title"] for key, part in _encodings(spec) if key == "y") == [name, "(parameter² loss⁻¹)"]


def test_many_names_side_by_side_are_slanted_rather_than_on_top_of_each_other():
    few, many = ([f"layer{number}.0.conv1.weight" for number in range(count)] for count in (4, 60))
    for names, angle in ((few, 0), (many, -50)):
        frame = pd.DataFrame({"x": names, "y": 1.0, "low": 0.9, "high": 1.1, "series": "heat"})
        spec = charts.bars(frame, lang="en", x_title="layer", y_title="heat").to_dict()
        assert {value["axis"]["labelAngle"] for key, value in _encodings(spec) if key == "x"} == {angle}


def test_many_evaluations_become_bands_that_lose_nothing(tmp_path):
    """Drawn one by one, those of a million steps are more rows than Altair takes."""
    run = write_run(tmp_path / "run", steps=600_000)
    drawn = {figure.id: figure.chart.to_dict() for figure in recorded.training(run, ViewState())}
    spec = drawn["training-evaluated-loss"]
    rows = pd.DataFrame(spec["datasets"][spec["data"]["name"]])
    assert len(rows) * len(spec["layer"]) <= charts.MAX_ROWS
    assert "3,000 values" in spec["title"]["text"][0]
    for label, name in (("training loss", "train_loss"), ("test loss", "test_loss")):
        values, band = read_series(run, name).values, rows[rows["series"] == label]
        assert (band["low"].min(), band["high"].max()) == (values.min(), values.max())
        assert (band["low"] <= band["y"]).all()
        assert (band["y"] <= band["high"]).all()
    # An interval with few of them shows each.
    few = recorded.training(run, ViewState(steps="1000-3000"))
    spec = next(figure for figure in few if figure.id == "training-evaluated-loss").chart.to_dict()
    assert len(spec["datasets"][spec["data"]["name"]]) == 2 * 11


@pytest.mark.parametrize(("drawn", "words"), [(True, "values ≤ 0"), (False, "buckets with a mean ≤ 0")])
def test_what_a_logarithmic_axis_leaves_out_is_called_what_it_is(drawn, words):
    y = np.array([1.0, -1, 2])
    frame = pd.DataFrame({"x": [1.0, 2, 3], "y": y, "low": y, "high": y, "series": "a"})
    chart = charts.curves(frame, lang="en", x_title="x", y_title="y", log_y=True, points=drawn)
    assert f"{words}, which a logarithmic axis cannot show: 1" in chart.to_dict()["title"]["text"]


def test_a_layer_whose_heat_is_not_known_is_told_and_directions_that_a_group_lacks_are_not(world):
    data = open_results(world / "good")["entropy_production"].copy(deep=True)
    data["heat_of_layer"][2] = np.nan
    data["mode_heat"][0, 2] = np.nan
    drawn = {
        figure.id: figure.chart.to_dict() for figure in figures.entropy_production([Source("good", data)], ViewState())
    }
    layers, directions = drawn["entropy-heat-layer"], drawn["entropy-heat-direction"]
    assert "values not defined or not measured, and left out: 1" in layers["title"]["text"]
    assert "left out" not in str(directions["title"])
    assert [row["x"] for row in directions["datasets"][directions["data"]["name"]]] == ["1", "2"]


def test_values_without_a_place_on_the_axis_are_told(world, monkeypatch):
    clock = clocks.clock_of(world / "good", "loss", "step")
    x = clock.x.copy()
    x[:7] = np.nan
    monkeypatch.setattr(recorded.clocks, "clock_of", lambda *_: clock._replace(x=x))
    spec = recorded.recorded_curve(world / "good", "loss", None, Text("all", "全部"), ViewState()).chart.to_dict()
    assert "values without a place on this axis: 7" in spec["title"]["text"]
    drawn = recorded._evaluations(
        world / "good", "loss", ["test_loss"], Text("all", "全部"), Text("all", "全部"), ViewState()
    )
    assert "values without a place on this axis: 7" in drawn.chart.to_dict()["title"]["text"]


def test_ratios_of_the_two_relations_do_not_share_a_name(world):
    results = open_results(world / "good")
    titles = [
        figure.title(lang)
        for lang in ("en", "zh")
        for name in ("response", "stationarity")
        for figure in figures.ANALYSES[name]([Source("good", results[name])], ViewState(lang=lang))
    ]
    assert len(set(titles)) == len(titles)


def test_the_shade_of_an_interval_from_zero_has_a_width_on_logarithmic_time(world):
    spec = recorded.whole_run(world / "good", ViewState(steps="0-500", scale="x")).chart.to_dict()
    (shade,) = next(rows for rows in spec["datasets"].values() if "left" in rows[0])
    assert 0 < shade["left"] < shade["right"] == 500


@pytest.mark.parametrize("lacking", ["curvature", "flatness_stderr", "mode_used", "variance_walk", "cosine_content"])
def test_flatness_of_another_version_draws_and_lists_what_it_has(world, lacking):
    data = open_results(world / "good")["flatness"].drop_vars(lacking)
    drawn = {figure.id for figure in figures.flatness([Source("good", data)], ViewState())}
    gone = {"curvature": {"flatness-noise"}, "flatness_stderr": {"flatness-variance"},
            "mode_used": {"flatness-noise", "flatness-variance"}}.get(lacking, set())  # fmt: skip
    assert drawn == {"flatness-variance", "flatness-noise", "flatness-exponents"} - gone
    table = tables.directions(curves.of_group(data, ViewState()), "en")
    assert len(table) == (0 if lacking == "mode_used" else data.sizes["mode"])


def test_colours_of_two_runs_are_theirs_on_the_parametric_plots_too(world):
    found = [open_results(world / run)["response"] for run in ("good", "other")]
    sources = [Source(run, data, place=place) for run, data, place in zip("ab", found, (2, 4), strict=True)]
    encoding = figures.response(sources, ViewState())[0].chart.to_dict()["layer"][1]["encoding"]
    assert encoding["color"]["scale"]["range"] == [charts.PALETTE[2]] * 2 + [charts.PALETTE[4]] * 2
    assert encoding["strokeDash"]["scale"]["range"] == [charts.DASHES[0], charts.DASHES[1]] * 2


@pytest.mark.parametrize("draw", [charts.curves, charts.bars])
def test_a_run_keeps_its_colour_where_a_logarithmic_axis_shows_nothing_of_another(draw):
    rows = [{"x": x, "y": y, "low": y, "high": y, "series": run} for run, y in (("a", -1.0), ("b", 1.0)) for x in "12"]
    frame = pd.DataFrame(rows).astype({"x": float if draw is charts.curves else str})
    spec = draw(frame, lang="en", x_title="x", y_title="y", log_y=True, places=[3, 5]).to_dict()
    scale = next(value["scale"] for key, value in _encodings(spec) if key == "color")
    assert dict(zip(scale["domain"], scale["range"], strict=True))["b"] == charts.PALETTE[5]


def test_points_of_directions_have_the_colour_of_their_run_and_the_shape_of_what_they_are(world):
    found = [open_results(world / run)["flatness"] for run in ("good", "other")]
    sources = [Source(run, data, place=place) for run, data, place in zip("ab", found, (2, 4), strict=True)]
    spec = figures.flatness(sources, ViewState(group="fc1"))[0].chart.to_dict()
    found = {key: value["scale"] for key, value in _encodings(spec) if key in ("color", "shape")}
    colours, shapes = (dict(zip(found[key]["domain"], found[key]["range"], strict=True)) for key in ("color", "shape"))
    assert {series: charts.PALETTE[2 if series.endswith("a") else 4] for series in colours} == colours
    assert shapes["measured · a"] == shapes["measured · b"] == charts.SHAPES[0]


@pytest.mark.parametrize("name", ["a" * 60, "\u566a" * 30])
def test_a_long_name_in_a_legend_has_a_row_of_its_own_and_is_not_cut(name):
    """Chinese letters are twice as wide."""
    legend = charts._legend([name, "b"])
    assert (legend["columns"], legend["labelLimit"]) == (1, 640)


def test_a_run_without_sgd_time_keeps_its_curves_on_that_axis(world):
    """Results of other optimizers have nothing but NaN on that clock: all are drawn over steps then."""
    found = open_results(world / "good")
    for name, draw in (("correlation", figures.correlation), ("dissipation", figures.dissipation)):
        data, clock = found[name], {"correlation": "lag_sgd_time", "dissipation": "window_sgd_time"}[name]
        adam = data.assign_coords({clock: (data[clock].dims, np.full(data[clock].size, np.nan))})
        for sources in ([Source("adam", adam)], [Source("sgd", data), Source("adam", adam)]):
            spec = draw(sources, ViewState(axis="sgd_time"))[0].chart.to_dict()
            rows = pd.DataFrame(next(values for values in spec["datasets"].values() if "series" in values[0]))
            assert np.isfinite(rows["x"].astype(float)).all()
            titles = {value["title"] for key, value in _encodings(spec) if key == "x" and value.get("title")}
            assert titles & {"lag (step)", "optimizer step"}
