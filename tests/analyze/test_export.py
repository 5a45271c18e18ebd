"""Results as plain files: what comes back is what was kept; and the examples of the public functions."""

import csv
import doctest
import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from thermodl import cli
from thermodl.analyze import analyze, export, open_results, open_run
from thermodl.analyze.export import ExportError, recorded_series
from thermodl.analyze.settings import AnalysisError

from .test_pipeline import STEPS, write_walk


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An analyzed run, to be copied."""
    run = tmp_path_factory.mktemp("analyzed") / "run"
    write_walk(run)
    analyze(run)
    return run


@pytest.fixture
def mine(analyzed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with an analyzed run in `runs/mine`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(analyzed, "runs/mine")
    return tmp_path


def test_netcdf_keeps_everything(mine: Path) -> None:
    """Values bit for bit, coordinates, units and texts; a truth value is a number, names are a coordinate."""
    pytest.importorskip("h5netcdf")
    tree = xr.open_datatree(export("runs/mine", "netcdf"), engine="h5netcdf", decode_times=False)
    kept = open_results("runs/mine")
    assert sorted(tree.children) == sorted(kept)
    for analysis, dataset in kept.items():
        back = tree[analysis].to_dataset().load()
        assert back.drop_attrs().identical(dataset.drop_attrs())
        for name, variable in dataset.data_vars.items():
            assert back[name].attrs == {key: value for key, value in variable.attrs.items() if key != "_FillValue"}
        for key in {key for key in dataset.attrs if not key.startswith("names_")}:
            assert np.array_equal(back.attrs[key], dataset.attrs[key]), key
    tree.close()
    assert sorted(entry.name for entry in mine.iterdir()) == ["mine.nc", "runs"]


@pytest.mark.parametrize("to", ["parquet", "csv"])
def test_a_table_holds_every_value_once(mine: Path, to: str) -> None:
    """Each value with its error bar finds its coordinates; CSV loses no digit."""
    pytest.importorskip({"netcdf": "h5netcdf", "parquet": "pyarrow"}.get(to, "csv"))
    path = export("runs/mine", to, mine / "deep" / "table", only=["diffusion", "temperature"])
    if to == "parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    else:
        rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    kept = open_results("runs/mine")
    values = [variable for name in ("diffusion", "temperature") for variable in kept[name].data_vars.items()]
    accompany = ("_stderr", "_low", "_high", "_n_eff")
    assert len(rows) == sum(variable.size for name, variable in values if not str(name).endswith(accompany))
    msd = kept["diffusion"]["mean_squared_displacement"]
    found = [row for row in rows if row["quantity"] == "mean_squared_displacement"]
    assert len(found) == msd.size
    for row in found:
        at = {dim: row[dim] if dim == "group" else int(float(row[dim])) for dim in msd.dims}
        for column, name in (("value", msd.name), ("stderr", f"{msd.name}_stderr")):
            np.testing.assert_equal(float(row[column]), float(kept["diffusion"][name].sel(at)))
        assert row["units"] == msd.attrs["units"]
        assert row["verdict"] in ("ok", "caution", "untrusted")


@pytest.mark.parametrize("to", ["netcdf", "parquet", "csv"])
def test_recorded_series(mine: Path, to: str) -> None:  # noqa: ARG001
    """A row for each step; a layer is a column of its own, or stays a dimension."""
    pytest.importorskip({"netcdf": "h5netcdf", "parquet": "pyarrow"}.get(to, "csv"))
    path, run = export("runs/mine", to, series=True), open_run("runs/mine")
    assert path.stem == "mine-series"
    if to == "netcdf":
        back = xr.open_dataset(path, group="series", engine="h5netcdf").load()
        assert back.drop_attrs().identical(recorded_series("runs/mine").load().drop_attrs())
        back.close()
        return
    if to == "parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    else:
        rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert [float(row["loss"]) for row in rows] == run["loss"].values.tolist()
    squares = run["gradient_squared"].sel(layer="second").values
    assert [float(row["gradient_squared.second"]) for row in rows] == squares.tolist()
    assert len(rows) == STEPS


def test_what_cannot_be_exported(mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """A file that is there stays unless told otherwise; no results, no such analysis, no package, no place."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", "runs/mine", "--to", "csv", "--only", "diffusion"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == "mine.csv\n"
    before = Path("mine.csv").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", "runs/mine", "--to", "csv"])
    assert stopped.value.code == 2
    assert "mine.csv exists; --overwrite" in capsys.readouterr().err
    assert Path("mine.csv").read_bytes() == before
    export("runs/mine", "csv", overwrite=True)
    assert len(Path("mine.csv").read_bytes()) > len(before)
    with pytest.raises(ExportError, match="has no results of the name 'other'; there are default"):
        export("runs/mine", "csv", "x.csv", name="other")
    with pytest.raises(ExportError, match="has no results of temprature; it has ageing, correlation"):
        export("runs/mine", "csv", "x.csv", only=["temprature"])
    with pytest.raises(ExportError, match="cannot be written"):
        export("runs/mine", "csv", mine / "mine.csv" / "x.csv")
    for to, package in (("netcdf", "h5netcdf"), ("parquet", "pyarrow")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ExportError, match=rf'needs the package {package}: pip install "thermodl\[export\]"'):
            export("runs/mine", to)
    assert sorted(entry.name for entry in mine.iterdir()) == ["mine.csv", "runs"]


def test_an_analysis_is_a_function_of_an_opened_run(mine: Path) -> None:  # noqa: ARG001
    """The same numbers as are kept, and a mistake is named."""
    from thermodl.analyze import temperature

    assert (
        temperature(open_run("runs/mine")).drop_attrs().identical(open_results("runs/mine")["temperature"].drop_attrs())
    )
    with pytest.raises(AnalysisError, match="there is no setting 'window'"):
        temperature(open_run("runs/mine"), window=4)
    with pytest.raises(AttributeError, match="no attribute 'diffussion'"):
        importlib.import_module("thermodl.analyze").diffussion  # noqa: B018


@pytest.mark.parametrize("module", ["pipeline", "results", "export"])
def test_examples_in_docstrings(mine: Path, module: str) -> None:  # noqa: ARG001
    """Every example runs, and prints what it says."""
    names = {"open_run": open_run, "open_results": open_results}
    found = doctest.testmod(importlib.import_module(f"thermodl.analyze.{module}"), extraglobs=names)
    assert found.attempted
    assert not found.failed
