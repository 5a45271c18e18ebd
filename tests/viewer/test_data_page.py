"""The page of exports: what its buttons give is whole, made on a click only, and outside of the runs."""

import csv
import io
import sys
import tempfile
import zipfile

import pytest
import xarray as xr
from viewer.synthetic import write_all_results, write_run
from viewer.test_app import go_to, open_app, words

from thermodl import cli
from thermodl.analyze.export import TABLES, export
from thermodl.record.archive import unpack_run
from thermodl.record.store import list_runs, open_run
from thermodl.viewer import pictures
from thermodl.viewer.pages import data


@pytest.fixture
def buttons(monkeypatch):
    """What each button of the page would make, by its key; None where it cannot be clicked."""
    made = {}
    monkeypatch.setattr(data, "_button", lambda place, label, name, make, key, to: made.update({key: (name, make)}))  # noqa: ARG005
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("data-page")
    write_all_results(write_run(root / "good"))
    return root


def _tree(root):
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in root.rglob("*")}


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_button_gives_a_file_and_the_runs_stay_as_they_are(runs, monkeypatch, tmp_path, buttons, lang):
    pytest.importorskip("h5netcdf", reason="needs the extra export")
    before = _tree(runs)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    at = go_to(open_app(runs, monkeypatch, run="good", lang=lang, part="diffusion", figure="diffusion-msd"), "data")
    assert not at.exception
    assert not list(temporary.iterdir())
    files = {key: (name, make()) for key, (name, make) in buttons.items() if make is not None}
    assert set(buttons) - set(files) == {"model"}
    assert _tree(runs) == before
    assert not list(temporary.iterdir())
    kinds = {"picture-png": b"\x89PNG", "picture-pdf": b"%PDF", "picture-svg": b"<svg", "picture-vega": b"{"}
    kinds |= {f"{what}-parquet": b"PAR1" for what in ("shown", "results-one", "results-all", "series")}
    kinds |= {f"{what}-netcdf": b"\x89HDF" for what in ("shown", "results-one", "results-all", "series")}
    for key, start in kinds.items():
        assert files[key][1].startswith(start), key
    rows = {key: list(csv.DictReader(io.StringIO(files[f"{key}-csv"][1].decode()))) for key in
            ("shown", "results-one", "results-all", "series")}  # fmt: skip
    assert {row["chart"] for row in rows["shown"]} == {"diffusion-msd"}
    assert {row["analysis"] for row in rows["results-one"]} == {"diffusion"}
    assert len({row["analysis"] for row in rows["results-all"]}) > 5
    assert len(rows["series"]) == 3000
    (tmp_path / "shown.nc").write_bytes(files["shown-netcdf"][1])
    back = xr.open_dataset(tmp_path / "shown.nc", group="rows", engine="h5netcdf").load()
    assert back.sizes["row"] == len(rows["shown"])
    back.close()
    assert f'<html lang="{"zh" if lang == "zh" else "en"}' in files["report"][1].decode()
    assert files["zip"][0] == "good.zip"
    with zipfile.ZipFile(io.BytesIO(files["zip"][1])) as archive:
        assert archive.testzip() is None
    (tmp_path / "good.zip").write_bytes(files["zip"][1])
    (found,) = unpack_run(tmp_path / "good.zip", tmp_path / "elsewhere")
    assert open_run(found).identical(open_run(runs / "good"))


def test_nothing_is_made_before_a_click(runs, monkeypatch):
    """A page that is drawn calls no export, draws no picture and builds no report."""
    for module, name in ((data, "export"), (data, "write_rows"), (data, "build_report"), (pictures, "draw")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("made without a click"))
    at = go_to(open_app(runs, monkeypatch, run="good"), "data")
    assert not at.exception
    assert len(at.download_button) == 4 + 3 + 3 + 3 + 3
    assert [code.value.split()[1:2] for code in at.code][-1] == ["report"]


def test_a_missing_package_names_the_extra(runs, monkeypatch, buttons):
    monkeypatch.setitem(sys.modules, "h5netcdf", None)
    at = go_to(open_app(runs, monkeypatch, run="good"), "data")
    assert not at.exception
    assert {key for key, (_, make) in buttons.items() if make is None} >= {"results-all-netcdf", "series-netcdf"}
    assert any('NetCDF: `pip install "thermodl[export]"`' in text for text in words(at))


def test_what_is_too_large_is_left_to_the_command_line(runs, monkeypatch, buttons):
    monkeypatch.setattr(data, "MOST_BYTES", 1000)
    monkeypatch.setattr(data, "MOST_VALUES", 1000)
    at = go_to(open_app(runs, monkeypatch, run="good"), "data")
    assert buttons["zip"][1] is None
    assert not {f"series-{to}" for to in TABLES} & set(buttons)
    assert sum("too much for a browser" in text for text in words(at)) == 2
    assert any(code.value.endswith("--to zip") for code in at.code)


@pytest.mark.parametrize("present", [True, False])
def test_the_page_says_beforehand_that_pictures_will_be_in_english(runs, monkeypatch, present):
    missing = pictures._IN_NO_FONT
    monkeypatch.setattr(pictures, "_letter", lambda letter: (letter if present else missing).encode())
    at = go_to(open_app(runs, monkeypatch, run="good", lang="zh"), "data")
    assert (pictures.IN_ENGLISH.zh in [box.value for box in at.info]) == (not present)
    at = go_to(open_app(runs, monkeypatch, run="good", lang="en"), "data")
    assert not at.info


def test_a_zip_is_viewed_as_it_is(runs, tmp_path, monkeypatch, capsys):
    """`thermodl view X.zip` shows the run from a temporary folder, which is gone afterwards."""
    export(runs / "good", "zip", tmp_path / "good.zip")
    shown = []

    def serve(root, name, *_, packed):
        assert str(packed) == name
        shown.append((root, name, [path.name for path in list_runs(root)]))

    monkeypatch.setattr("thermodl.viewer.cli._serve", serve)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["view", str(tmp_path / "good.zip")])
    assert stopped.value.code == 0
    ((root, name, found),) = shown
    assert (name, found) == (str(tmp_path / "good.zip"), ["good"])
    assert not root.exists()
    (tmp_path / "good.zip").write_bytes(b"no zip")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["view", str(tmp_path / "good.zip")])
    assert stopped.value.code == 2
    assert "cannot be unpacked" in capsys.readouterr().err
