"""Charts as files, and what is drawn as rows: from the page and from the command line."""

import json
import re
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from viewer.synthetic import write_all_results, write_run, write_undefined

from thermodl import cli
from thermodl.analyze.results import read_verdicts
from thermodl.viewer import catalog, charts, clocks, curves, figures, pictures
from thermodl.viewer.pictures import draw, figures_of, find_figure, parts_of, rows
from thermodl.viewer.state import ViewState
from thermodl.viewer.text import Text


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_all_results(write_run(tmp_path_factory.mktemp("pictures") / "good"))


@pytest.fixture(scope="module")
def loaded(good):
    run = catalog.read_run(good)
    return run, catalog.read_results(run)


@pytest.fixture
def fonts(monkeypatch):
    """Letters drawn as if the fonts of this computer had Chinese characters, or had not."""

    def choose(present):
        missing = pictures._IN_NO_FONT
        monkeypatch.setattr(pictures, "_letter", lambda letter: (letter if present else missing).encode())

    return choose


def _maker(loaded, name):
    run, results = loaded
    return lambda lang: find_figure(run, name, results, ViewState(lang=lang))


MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<svg", "vega": b"{"}


@pytest.mark.parametrize("to", MAGIC)
@pytest.mark.parametrize("present", [True, False])
def test_png_and_pdf_fall_back_to_english_where_no_font_has_the_letters(loaded, fonts, to, present):
    fonts(present)
    picture, lang = draw(_maker(loaded, "diffusion-msd"), to, "zh")
    assert picture.startswith(MAGIC[to])
    assert lang == ("zh" if present or to in ("svg", "vega") else "en")
    if to in ("svg", "vega"):
        assert "均方位移" in picture.decode()
    if to == "png":
        assert (picture == draw(_maker(loaded, "diffusion-msd"), to, "en")[0]) == (not present)


def test_the_check_of_fonts_draws_the_letters():
    """A Latin letter is in some font of any computer, and what no font has looks like itself."""
    assert not pictures.lacks_letters({"title": "diffusion η‖g‖²"})
    assert pictures._letter("A") != pictures._letter(pictures._IN_NO_FONT)
    same = pictures._letter("温") == pictures._letter(pictures._IN_NO_FONT)
    assert pictures.lacks_letters({"title": "温"}) == same


def test_a_picture_has_the_title_and_a_sharp_size(loaded):
    png, _ = draw(_maker(loaded, "temperature-time"), "png", "en")
    width, _height = struct.unpack(">II", png[16:24])
    assert width > 1.8 * charts.WIDTH
    svg, _ = draw(_maker(loaded, "temperature-time"), "svg", "en")
    text = " ".join(ElementTree.fromstring(svg).itertext())
    assert "Thermometers over time" in text
    assert "± 1 standard error" in text
    spec = json.loads(draw(_maker(loaded, "temperature-time"), "vega", "en")[0])
    assert spec["$schema"].startswith("https://vega.github.io/schema/vega-lite/v6")


@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("flatness-variance", "curvature"),
        ("flatness-exponents", "curvature"),
        ("response-asymmetry", "asymmetry"),
        ("events-loss", "event_kind"),
        ("entropy-heat-layer", "heat"),
        ("temperature-ratio", "temperature_noise"),
        ("noise-spectrum", "low_frequency_weight"),
        ("noise-scale", "gradient_norm_squared"),
        ("diffusion-msd", "diffusion_coefficient_predicted"),
    ],
)
def test_a_figure_is_doubted_with_what_it_rests_on(loaded, name, quantity):
    assert quantity in find_figure(*loaded[:1], name, loaded[1], ViewState()).quantities


def test_what_figures_rest_on_is_said_of_figures_that_there_are():
    code = "".join(Path(module.__file__).read_text("utf-8") for module in (figures, curves))
    assert not [name for name in figures.RESTS_ON if code.count(f'"{name}"') < 2]


def test_a_caption_names_group_and_segment_where_there_are_any(loaded):
    """An analysis of the whole run has no segment; a dash would stand for nothing."""
    run, results = loaded
    for group in ("all", "fc1"):
        for part in set(parts_of(run)) - {pictures.TRAINING}:
            whole = results[part].assign_attrs(segment=None)
            for data in (results[part], whole):
                for figure in figures_of(run, part, data, ViewState(group=group)).values():
                    first = figure.caption[0]
                    assert ("fc1" in first) == (group == "fc1")
                    doubtful = any(line.startswith(("caution", "untrusted")) for line in figure.caption)
                    assert ("of all layers together:" in figure.caption) == (doubtful and group == "fc1")
                    assert ("segment: steps" in first) == (data is not whole)
                    assert "—" not in first


@pytest.mark.parametrize(("lang", "word"), [("en", "caution: "), ("zh", "慎用：")])
def test_a_picture_says_of_which_run_it_is_and_what_not_to_trust(loaded, lang, word):
    """Doubts about what it draws and about the whole analysis, whole sentences over as many lines as it takes."""
    run, results = loaded
    for part in parts_of(run):
        for name, figure in figures_of(run, part, results.get(part), ViewState(lang=lang)).items():
            spec = json.loads(draw(lambda _, figure=figure: figure, "vega", lang)[0])
            lines = spec["title"]["subtitle"]
            assert any(line.startswith(run.id) for line in lines), name
            assert max(map(len, lines)) <= 140
            told = "".join(lines).replace(" ", "")
            if part == pictures.TRAINING:
                continue
            assert figure.quantities, name
            for one in read_verdicts(results[part]):
                concerns = one["quantity"] in ("", *figure.quantities) and one["status"] != "ok"
                assert (one[lang].replace(" ", "") in told) == concerns, (name, one)
    spec = draw(_maker(loaded, "temperature-group"), "vega", lang)[0].decode()
    assert word in spec


def test_rows_of_a_chosen_group_are_its_own_and_not_those_in_grey_behind(loaded):
    run, results = loaded
    for name in ("dissipation-seed", "temperature-ratio"):
        chosen = rows(find_figure(run, name, results, ViewState(group="fc1")))
        everything = rows(find_figure(run, name, results, ViewState()))
        assert len(chosen) == len(everything) > 0, name
        assert set(chosen["series"]).isdisjoint({"conv1", "conv2", "fc2"}), name


def test_rows_of_a_curve_are_not_the_events_on_it_however_many_there_are():
    frame = pd.DataFrame({"x": [1.0, 2], "y": [3.0, 4], "low": 2.0, "high": 5.0, "series": "loss"})
    events = pd.DataFrame({"x": np.arange(9.0), "y": 0.0, "low": -1.0, "high": 1.0, "series": "candidate"})
    curve = charts.curves(frame, lang="en", x_title="step", y_title="loss")
    drawn = rows(curves.Figure("loss", Text("all", "全部"), charts.marked(curve, events)))
    assert drawn[["x", "y"]].values.tolist() == [[1, 3], [2, 4]]


def test_rows_are_what_every_chart_draws(loaded):
    run, results = loaded
    count = 0
    for part in parts_of(run):
        for name, figure in figures_of(run, part, results.get(part), ViewState()).items():
            drawn = rows(figure)
            assert {"chart", "x_title", "y_title", "x", "y", "low", "high", "series"} <= set(drawn.columns), name
            assert set(drawn["chart"]) == {name}
            assert drawn["x_title"].iloc[0], name
            assert drawn["y_title"].iloc[0], name
            count += 1
    assert count > 30
    msd = rows(find_figure(run, "diffusion-msd", results, ViewState()))
    kept = results["diffusion"]["mean_squared_displacement"].isel(group=0).values
    shown = msd[msd["series"] == msd["series"].iloc[0]]
    np.testing.assert_array_equal(np.sort(shown["y"]), np.sort(kept))


def _run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", *map(str, arguments)])
    return stopped.value.code


@pytest.mark.parametrize("to", MAGIC)
def test_a_chart_from_the_command_line(good, tmp_path, monkeypatch, capsys, to):
    monkeypatch.chdir(tmp_path)
    assert _run(good, "--to", to, "--chart", "diffusion-msd", "--group", "fc1") == 0
    name = f"good-diffusion-msd{pictures.SUFFIXES[to]}"
    assert capsys.readouterr().out == f"{name}\n"
    before = (tmp_path / name).read_bytes()
    assert before.startswith(MAGIC[to])
    assert _run(good, "--to", to, "--chart", "diffusion-msd") == 2
    assert "exists; --overwrite" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_chart_over_time_takes_interval_axis_and_scales(good, tmp_path):
    """What the page of exports names as its command."""
    out, view = tmp_path / "loss.json", ["--steps", "1000-1999", "--scale", "xy", "--axis", "noise_time"]
    assert _run(good, "--to", "vega", "--chart", "training-loss", "--out", out, *view) == 0
    spec = json.loads(out.read_text())
    rows = next(rows for rows in spec["datasets"].values() if "low" in rows[0])
    places = clocks.places(good, "noise_time", np.array([1000, 1999]))
    assert places[0] <= rows[0]["x"] <= rows[-1]["x"] <= places[1]
    scales = spec["layer"][0]["encoding"]
    assert {scales[axis]["scale"]["type"] for axis in ("x", "y")} == {"log"}


def test_options_that_change_nothing_are_named(good, tmp_path, capsys):
    view = ["--steps", "1000-1999", "--scale", "y", "--group", "conv1"]
    assert _run(good, "--to", "vega", "--chart", "diffusion-msd", "--out", tmp_path / "a.json", *view) == 0
    nothing = "thermodl: --{} changes nothing in diffusion-msd\n"
    assert capsys.readouterr().err == nothing.format("steps 1000-1999") + nothing.format("scale y")
    assert _run(good, "--to", "vega", "--chart", "noise-time", "--out", tmp_path / "b.json", *view) == 0
    assert not capsys.readouterr().err


def test_mistakes_are_named(good, tmp_path, monkeypatch, capsys, fonts):
    monkeypatch.chdir(tmp_path)
    for arguments, said in (
        (["--to", "svg"], "needs --chart"),
        (["--to", "csv", "--chart", "x"], "--chart goes with --to png, svg, pdf, vega"),
        (
            ["--to", "svg", "--chart", "diffusion-msg"],
            "thermodl: good has no chart 'diffusion-msg'; it has .*diffusion-msd.*noise-time",
        ),
        (["--to", "svg", "--chart", "diffusion-msd", "--group", "fc9"], "has no group 'fc9'; it has all, conv1"),
        (["--to", "svg", "--chart", "diffusion-msd", "--name", "other"], "has no results of the name 'other'"),
        (["--to", "svg", "--chart", "training-loss", "--steps", "9-5"], "steps '9-5': expected the first and the last"),
        (
            ["--to", "svg", "--chart", "training-loss", "--steps", "9000-9999"],
            "steps '9000-9999': .*good has the steps 0 to 2999",
        ),
        (["--to", "zip", "--series"], "--to zip takes the run as a whole"),
    ):
        assert _run(good, *arguments) == 2
        error = capsys.readouterr().err
        assert re.search(said, error), error
        assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
    undefined = write_run(tmp_path / "adam")
    write_undefined(undefined, "dissipation", "Not defined: the heat of Adam.", "没有定义：Adam 的热。")
    assert _run(undefined, "--to", "svg", "--chart", "dissipation-seed") == 2
    assert "; dissipation: Not defined: the heat of Adam." in capsys.readouterr().err
    fonts(False)
    assert _run(good, "--to", "png", "--chart", "training-loss", "--lang", "zh") == 0
    assert "drawn in English" in capsys.readouterr().err
