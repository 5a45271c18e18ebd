"""Results as plain files: what comes back is what was kept; and the examples of the public functions."""

import csv
import doctest
import importlib
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from thermodl import cli
from thermodl.analyze import analyze, export, open_results, open_run
from thermodl.analyze.export import ExportError, doubts_about, recorded_series, results_table
from thermodl.analyze.settings import AnalysisError
from thermodl.record import archive
from thermodl.record.archive import unpack_run
from thermodl.record.errors import RunError
from thermodl.record.store import list_runs, read_attributes

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
    recorded = read_attributes("runs/mine")
    assert (tree.attrs["run"], tree.attrs["results"]) == ("mine", "default")
    assert tree.attrs["run_id"] == recorded["run_id"]
    assert json.loads(tree.attrs["optimizer"]) == recorded["optimizer"]
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
        first, stop = kept["diffusion"].attrs["segment"]
        assert (row["run"], row["results"], row["analysis"]) == ("mine", "default", "diffusion")
        assert (int(row["first_step"]), int(row["last_step"])) == (first, stop - 1)
        assert row["verdict"] in ("ok", "caution", "untrusted", *([""] if np.isnan(float(row["value"])) else []))


def test_what_is_not_there_is_never_ok() -> None:
    """Nor does it lose a verdict that says more."""
    doubtful = {"quantity": "y", "status": "caution", "code": "short", "en": "Short.", "zh": "短。"}
    results = xr.Dataset({"x": ("group", [1.0, np.nan]), "y": ("group", [2.0, np.nan])}, {"group": ["all", "a"]})
    table = results_table({"made-up": results.assign_attrs(verdicts=json.dumps([doubtful]))})
    assert table["verdict"] == ["ok", "", "caution", "caution"]


def test_a_run_that_is_not_there_is_no_run_without_results(tmp_path: Path) -> None:
    """The advice to analyze it would fail."""
    for refused in (lambda: open_results(tmp_path / "nowhere"), lambda: export(tmp_path / "nowhere", "csv")):
        with pytest.raises(RunError, match="no such folder"):
            refused()


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


def test_a_zip_of_a_run_is_opened_again_elsewhere(mine: Path, capsys: pytest.CaptureFixture) -> None:
    """Byte for byte, without the checkpoint and without what links lead to; a run of the name is left alone."""
    run = mine / "runs" / "mine"
    (run / "checkpoint.pt").write_bytes(b"pickle")
    (run / "run.zarr" / "link").symlink_to(Path(__file__))
    (run / "run.zarr" / "folder").symlink_to(Path(__file__).parent)
    path = export(run, "zip")
    assert path == Path("mine.zip")
    for arguments, code in ((["unpack", "mine.zip", "--runs-dir", "else/where"], 0), (["unpack", "mine.zip"], 2)):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == code
    said = capsys.readouterr()
    assert said.out == f"{Path('else/where/mine')}\n"
    assert "is there already, and was left alone" in said.err
    back = mine / "else" / "where" / "mine"
    files = {file.relative_to(run) for file in run.rglob("*") if file.is_file() and not file.is_symlink()}
    assert {file.relative_to(back) for file in back.rglob("*") if file.is_file()} == files - {Path("checkpoint.pt")}
    assert all((back / name).read_bytes() == (run / name).read_bytes() for name in files - {Path("checkpoint.pt")})
    assert open_run(back).identical(open_run(run))
    assert sorted(open_results(back)) == sorted(open_results(run))
    assert [entry.name for entry in back.parent.iterdir()] == ["mine"]
    with pytest.raises(RunError, match=r"is a file, and no run folder; from a zip of a run `thermodl unpack`"):
        open_run("mine.zip")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../mine/run.zarr/zarr.json", "leads out of the folder"),
        ("/mine/run.zarr/zarr.json", "is an absolute path"),
        ("mine/run.zarr/c:x", "a drive"),
        ("elsewhere/zarr.json", "holds no run"),
        ("mi:ne/run.zarr/zarr.json", "a drive"),
        ("-mine/run.zarr/zarr.json", "holds no run"),
    ],
)
def test_a_zip_that_is_none_of_a_run_is_refused(tmp_path: Path, name: str, said: str) -> None:
    """As a whole; nothing is left behind. A link in it is refused, too, and a file that is no zip."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        out.writestr(name, "{}")
    with pytest.raises(RunError, match=said):
        unpack_run(tmp_path / "x.zip", tmp_path / "runs")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        entry = zipfile.ZipInfo("mine/run.zarr/link")
        entry.external_attr = 0o120777 << 16
        out.writestr(entry, "/etc/passwd")
    with pytest.raises(RunError, match="symbolic link"):
        unpack_run(tmp_path / "x.zip", tmp_path / "runs")
    (tmp_path / "x.zip").write_bytes(b"PK nothing")
    with pytest.raises(RunError, match="cannot be unpacked"):
        unpack_run(tmp_path / "x.zip", tmp_path / "runs")
    with pytest.raises(RunError, match="no such file"):
        unpack_run(tmp_path / "y.zip", tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


def test_what_is_packed_can_be_unpacked(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run larger than a data set may be; one whose names would meet on some systems is refused while packing."""
    run = mine / "runs" / "mine"
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    archive.pack_run(run, Path("large.zip"))
    (back,) = unpack_run(Path("large.zip"), Path("elsewhere"))
    assert open_run(back).identical(open_run(run))
    shutil.copytree(run / "results.zarr" / "default", run / "results.zarr" / "Default")
    with pytest.raises(RunError, match=r"is not packed: it holds .* twice \(apart from upper and lower case\)"):
        archive.pack_run(run, Path("twins.zip"))
    assert not Path("twins.zip").exists()


def test_a_run_that_grows_while_it_is_packed_is_whole(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its commit record promises is in the zip, and it was read before the files were listed."""
    run, check = mine / "runs" / "mine", archive._check
    record = run / "run.zarr" / "zarr.json"
    before = record.read_bytes()

    def grow(entries: list[zipfile.ZipInfo]) -> list[list[str]]:
        record.write_bytes(before.replace(b'"state": "finished"', b'"state": "running"'))
        return check(entries)

    monkeypatch.setattr(archive, "_check", grow)
    archive.pack_run(run, Path("grown.zip"))
    monkeypatch.setattr(archive, "_check", check)
    (back,) = unpack_run(Path("grown.zip"), Path("elsewhere"))
    assert (back / "run.zarr" / "zarr.json").read_bytes() == before != record.read_bytes()


def test_a_run_of_another_name_is_told_to_be_renamed(mine: Path) -> None:
    """Before it is packed, as it could not be opened again."""
    (mine / "runs" / "mine").rename(mine / "runs" / "my run?")
    with pytest.raises(RunError, match=r"is not packed: 'my run\?' is no name of a run .*; rename the folder"):
        archive.pack_run(mine / "runs" / "my run?", Path("x.zip"))


@pytest.mark.parametrize("name", ["实验 1", "run (lr=0.1, μ=0.9)"])
def test_a_run_may_have_any_name_that_a_folder_may(mine: Path, name: str) -> None:
    """It is listed, packed, and unpacked under it."""
    (mine / "runs" / "mine").rename(mine / "runs" / name)
    assert [run.name for run in list_runs("runs")] == [name]
    archive.pack_run(Path("runs") / name, Path("x.zip"))
    (back,) = unpack_run(Path("x.zip"), Path("elsewhere"))
    assert back.name == name
    assert export(Path("runs") / name, "csv").name == f"{name}.csv"


@pytest.mark.usefixtures("mine")
def test_rows_of_a_table_can_be_told_apart() -> None:
    """Also along dimensions that have no coordinate, such as the octaves of ageing."""
    table = results_table(open_results("runs/mine"))
    apart = [
        column
        for column in table
        if column not in ("value", "stderr", "low", "high", "n_eff", "units", "verdict", "codes")
    ]
    rows = list(zip(*(table[column] for column in apart), strict=True))
    assert len(rows) > 500
    assert len(set(rows)) == len(rows)
    assert "octave" in apart


def test_what_is_stale_says_so_in_the_file(mine: Path) -> None:
    """Results of another recording, in a table and in NetCDF; the command line says it as well."""
    assert set(results_table_of(export("runs/mine", "csv"))["stale"]) == {""}
    assert not doubts_about("runs/mine", "csv")
    record = mine / "runs" / "mine" / "run.zarr" / "zarr.json"
    record.write_bytes(record.read_bytes().replace(b'"started": 1', b'"started": 2'))
    assert set(results_table_of(export("runs/mine", "csv", overwrite=True))["stale"]) == {"other-recording"}
    (line,) = doubts_about("runs/mine", "csv", only=["diffusion"])
    assert line.endswith("diffusion; `thermodl analyze runs/mine` makes them anew")
    pytest.importorskip("h5netcdf")
    with xr.open_datatree(export("runs/mine", "netcdf"), engine="h5netcdf") as tree:
        assert tree["diffusion"].attrs["stale"] == "other-recording"


def results_table_of(path: Path) -> dict[str, list[str]]:
    """The columns of a CSV file."""
    header, *rows = csv.reader(path.read_text("utf-8").splitlines())
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def test_a_run_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    """Chunks are compressed: what becomes far larger is none."""
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("mine/run.zarr/zarr.json", "{}")
        out.writestr("mine/run.zarr/loss/c/0", bytes(101_000_000))
    with pytest.raises(RunError, match="times larger than the file, more than 4 times"):
        unpack_run(tmp_path / "bomb.zip", tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


def test_the_content_of_a_run_folder_zipped_by_hand_is_a_run(mine: Path) -> None:
    """Named by the zip; what does not belong to a run stays in it."""
    (mine / "runs" / "mine" / "run.sh").write_text("rm -rf")
    shutil.make_archive("by-hand", "zip", "runs/mine")
    assert unpack_run(Path("by-hand.zip"), Path("new")) == [Path("new/by-hand")]
    assert open_run("new/by-hand").identical(open_run("runs/mine"))
    assert sorted(entry.name for entry in Path("new/by-hand").iterdir()) == ["results.zarr", "run.zarr"]


def test_the_model_as_safetensors(mine: Path) -> None:  # noqa: ARG001
    """The final parameters by name; the file that training saved where there is one; none before the end."""
    load_file = pytest.importorskip("safetensors.numpy").load_file
    run = open_run("runs/mine")
    ends = np.cumsum([layer["size"] for layer in run.attrs["layers"]])
    vector = np.arange(ends[-1], dtype="f4")
    metadata = Path("runs/mine/run.zarr/zarr.json")
    with pytest.raises(ExportError, match="has no trained model"):
        export("runs/mine", "safetensors")
    group = zarr.open_group("runs/mine/run.zarr", mode="r+")
    group.create_array("final_parameters", data=vector, dimension_names=["parameter"])
    content = json.loads(metadata.read_bytes())
    first = content["attributes"]["layers"][0]
    first["shape"] = [first["size"], 1]
    metadata.write_text(json.dumps(content))
    tensors = load_file(export("runs/mine", "safetensors"))
    assert list(tensors) == sorted(layer["name"] for layer in run.attrs["layers"])
    assert tensors[first["name"]].shape == (first["size"], 1)
    np.testing.assert_array_equal(
        np.concatenate([tensors[layer["name"]].ravel() for layer in run.attrs["layers"]]), vector
    )
    Path("runs/mine/model.safetensors").write_bytes(b"with buffers")
    assert export("runs/mine", "safetensors", overwrite=True).read_bytes() == b"with buffers"


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

    now, kept = temperature(open_run("runs/mine")), open_results("runs/mine")["temperature"]
    xr.testing.assert_allclose(now.drop_attrs(), kept.drop_attrs(), rtol=1e-12)
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
