"""Pages on a real recording whose inner products were not taken at every step."""

import json

import numpy as np
import pytest
from viewer.test_app import PAGES, go_to, open_app, words

pytest.importorskip("torch")

from record.quadratic import record_quadratic
from thermodl.analyze import analyze, open_run
from thermodl.record import RecorderSettings

STEPS, MEASURED, EVERY = 1000, 150, 250
GAP = "160-240"


@pytest.fixture(scope="module")
def bursts(tmp_path_factory):
    """A quadratic in bursts, analyzed, and beside it another that was not analyzed."""
    root = tmp_path_factory.mktemp("bursts")
    settings = RecorderSettings(
        products_every=f"burst:{MEASURED}/{EVERY}", probe_every=5, snapshot_every=0, sketch_size=8
    )
    for name in ("bursts", "other"):
        record_quadratic(
            root / name, learning_rate=0.2, momentum=0.9, steps=STEPS, dimensions=8, burn_in=50, settings=settings
        )
    assert analyze(root / "bursts") == {}
    return root


def titles(at):
    """What stands above each chart that says something."""
    specs = [json.loads(chart.proto.spec) for chart in at.get("vega_lite_chart")]
    return [" ".join(spec["title"]["text"]) for spec in specs if "title" in spec]


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("steps", ["", GAP, "100-900"])
def test_every_page_shows_a_recording_in_bursts(bursts, monkeypatch, lang, steps):
    """Also an interval of nothing but steps between them."""
    at = open_app(bursts, monkeypatch, run="bursts", other="other", lang=lang, steps=steps)
    for page in PAGES:
        go_to(at, page)
        assert not at.exception, (page, at.exception[0].stack_trace)
        assert not [box.value for box in at.error if "cannot be read" in box.value], page


def test_layers_count_the_steps_between_bursts_and_do_not_draw_across_them(bursts, monkeypatch):
    at = go_to(open_app(bursts, monkeypatch, run="bursts", quantity="gradient_squared"), "layers")
    lost = STEPS - MEASURED * STEPS // EVERY
    of_map, of_line = titles(at)
    assert f"values not finite or not measured at that step: {lost:,}" in of_map
    assert f"{STEPS:,} values, {lost:,} not finite or not measured" in of_line
    line = at.get("vega_lite_chart")[1].proto
    assert '"break-paths-show-domains"' in line.spec
    assert np.isnan(open_run(bursts / "bursts")["gradient_squared"].values).sum() == lost


def test_layers_say_that_nothing_was_measured_between_bursts(bursts, monkeypatch):
    at = go_to(open_app(bursts, monkeypatch, run="bursts", quantity="gradient_squared", steps=GAP), "layers")
    shown = " ".join([*words(at), *titles(at)])
    assert "values not finite or not measured at that step: 81" in shown
    assert "81 values, 81 not finite or not measured" in shown


def test_the_loss_of_every_step_is_there_between_bursts(bursts, monkeypatch):
    at = go_to(open_app(bursts, monkeypatch, run="bursts", steps=GAP), "overview")
    assert at.get("vega_lite_chart")
    assert not any("not finite or not measured" in title for title in titles(at))
