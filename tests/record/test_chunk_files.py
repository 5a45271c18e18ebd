"""Chunk files read past zarr: the same numbers, and the same refusal of whatever is damaged."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from numcodecs import Blosc

from thermodl.record import writer
from thermodl.record.chunk_files import UNREADABLE, read_block, read_entries
from thermodl.record.store import open_run
from thermodl.record.writer import RunWriter

STEPS = 20_000
SIZES = {"layer": 3, "group": 2, "optimizer_group": 2, "sketch": 4, "parameter": 5}
SHAPES = {
    "step": (),
    "loss": (),
    "learning_rate": (2,),
    "gradient_squared": (3,),
    "gradient_sketch": (2, 4),
}


def write(folder: Path, lengths: tuple[int, ...]) -> Path:
    """A recording of several flushes."""
    attributes = {
        "layers": [{"name": f"l{i}", "group": "g", "size": 2, "optimizer_group": 0} for i in range(3)],
        "groups": ["g", "h"],
    }
    writer, rng, start = RunWriter(folder, SIZES, list(SHAPES), attributes), np.random.default_rng(0), 0
    for length in lengths:
        block = {name: rng.standard_normal((*shape, length)) for name, shape in SHAPES.items()}
        block["step"] = np.arange(start, start + length)
        block["loss"][::7] = np.nan
        writer.append("step", block)
        start += length
    writer.close("finished")
    return folder / "run.zarr"


def opened(run: Path, name: str) -> zarr.Array:
    return zarr.open_array(run, path=name, mode="r")


@pytest.fixture(scope="module", params=["long chunks", "short chunks"])
def run(request, tmp_path_factory) -> Path:
    """A recording of now, and one of before the chunks of single numbers were long."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "short chunks":
            patch.setattr(writer, "_ROW_BYTES", 0)
        return write(tmp_path_factory.mktemp("run") / "run", (64, 64, 7000, 1, STEPS - 7129))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("length", [0, 1, 255, 256, 4096, 4097, STEPS - 1, STEPS])
def test_the_numbers_are_those_of_zarr(run: Path, name: str, length: int) -> None:
    array = opened(run, name)
    values, lost = read_entries(array, run / name, length)
    np.testing.assert_array_equal(values, np.asarray(array[..., :length], float))
    assert lost == 0
    for row in range(array.shape[0] if SHAPES[name] else 0):
        values, _ = read_entries(array, run / name, length, row)
        np.testing.assert_array_equal(values, np.asarray(array[row, ..., :length], float))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("times", [(0, STEPS), (0, 1), (255, 257), (4095, 8193), (STEPS - 1, STEPS), (700, 700)])
def test_a_block_is_as_it_is_stored(run: Path, name: str, times: tuple[int, int]) -> None:
    array = opened(run, name)
    for spans in ([(0, size) for size in SHAPES[name]], [(size - 1, size) for size in SHAPES[name]]):
        block = read_block(array, run / name, [*spans, times])
        expected = np.asarray(array[(*(slice(*span) for span in spans), slice(*times))])
        assert block.dtype == array.dtype
        np.testing.assert_array_equal(block, expected)


@pytest.mark.parametrize("codecs", [[], ["gzip"], ["blosc"]])
def test_other_codecs_are_read_too(tmp_path: Path, codecs: list[str]) -> None:
    known = {"gzip": zarr.codecs.GzipCodec(), "blosc": zarr.codecs.BloscCodec()}
    values = np.random.default_rng(0).standard_normal((3, 1000))
    array = zarr.create_array(
        tmp_path, name="x", shape=values.shape, chunks=(2, 64), dtype="f8", compressors=[known[name] for name in codecs]
    )
    array[...] = values
    np.testing.assert_array_equal(read_entries(array, tmp_path / "x", 900)[0], values[:, :900])
    np.testing.assert_array_equal(read_entries(array, tmp_path / "x", 900, 2)[0], values[2, :900])


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:40] + bytes([content[40] ^ 1]) + content[41:]


def empty(_: bytes) -> bytes:
    return b""


def of_another_shape(_: bytes) -> bytes:
    return bytes(Blosc().encode(np.zeros(3)))


@pytest.mark.parametrize("damage", [cut, flipped, empty, of_another_shape])
@pytest.mark.parametrize("name", ["loss", "gradient_squared"])
def test_a_damaged_chunk_costs_only_itself(tmp_path: Path, damage, name: str) -> None:
    run = write(tmp_path / "run", (STEPS,))
    array, whole = opened(run, name), np.asarray(opened(run, name)[...])
    width = array.chunks[-1]
    file = run / name / array.metadata.encode_chunk_key((*(0 for _ in SHAPES[name]), 1))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises((RuntimeError, ValueError)):
        _ = array[...]
    with pytest.raises(UNREADABLE):
        read_block(array, run / name, [(0, size) for size in array.shape])
    values, lost = read_entries(array, run / name, STEPS)
    assert lost == width
    assert np.isnan(values[..., width : 2 * width]).all()
    np.testing.assert_array_equal(
        np.delete(values, slice(width, 2 * width), -1), np.delete(whole, slice(width, 2 * width), -1)
    )


def test_a_chunk_that_is_not_there_is_missing_values(tmp_path: Path) -> None:
    run = write(tmp_path / "run", (STEPS,))
    (run / "step" / "c" / "1").unlink()
    array = opened(run, "step")
    values, lost = read_entries(array, run / "step", STEPS)
    np.testing.assert_array_equal(values, np.asarray(array[...], float))
    assert (lost, values[4096]) == (0, -1)
    np.testing.assert_array_equal(read_block(array, run / "step", [(4000, 9000)]), array[4000:9000])
    (run / "gradient_sketch" / "c" / "1" / "0" / "2").unlink()
    sketch = opened(run, "gradient_sketch")
    block = read_block(sketch, run / "gradient_sketch", [(0, 2), (1, 3), (900, 3500)])
    np.testing.assert_array_equal(block, sketch[:, 1:3, 900:3500])
    assert np.isnan(block).any()


def test_shards_are_read_as_zarr_reads_them(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 1000))
    array = zarr.create_array(tmp_path, name="x", shape=values.shape, shards=(2, 256), chunks=(2, 64), dtype="f8")
    array[...] = values
    np.testing.assert_array_equal(read_block(array, tmp_path / "x", [(1, 3), (60, 700)]), values[1:, 60:700])
    np.testing.assert_array_equal(read_entries(array, tmp_path / "x", 900)[0], values[:, :900])


def test_a_long_series_lies_in_few_files(tmp_path: Path) -> None:
    """As long as a row of them stays small enough to be written again at every flush."""
    run = write(tmp_path / "run", (STEPS,))
    chunks = {name: opened(run, name).chunks for name in SHAPES}
    assert chunks["loss"] == chunks["step"] == (4096,)
    assert chunks["learning_rate"] == (2, 2048)
    assert chunks["gradient_squared"][0] == 3
    assert chunks["gradient_sketch"] == (1, 4, 1024)
    for name in ("step", "loss", "learning_rate", "gradient_squared"):
        array = opened(run, name)
        assert np.prod(array.chunks) * array.dtype.itemsize <= 2**15


def test_short_and_long_chunks_hold_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "now", (700,) * 30)
    monkeypatch.setattr(writer, "_ROW_BYTES", 0)
    write(tmp_path / "before", (700,) * 30)
    now, before = (open_run(tmp_path / name).load() for name in ("now", "before"))
    for name in SHAPES:
        np.testing.assert_array_equal(now[name], before[name])
