"""What a snapshot takes on the disk, and what it lacks: this format beside other codecs, and beside the theory.

    python tests/benchmarks/compression.py [--steps 1280] [--every 5] [--start 0] [--model cnn] [--run RUN]

The trajectory is real: the built-in training, recorded without loss. Every codec gets the same chunks of about 1 MiB,
16 snapshots wide with time fastest; ratio and bits count chunks as they lie on the disk, for ours with its scales. The
error is the rms error of a parameter in units of the rms displacement of its layer between two snapshots. MB/s are of
float32 in and out, CPU time of one thread, the best of three; ours includes the compressor.

The bound is that of a Gaussian random walk whose increments have a layer's mean square σ², at mean square error D:
½log₂(σ²/D) bits each, by layers. Parameters within a layer move by different amounts, so a real code may beat it.
pcodec and zfp are measured where they can be imported, from a folder of their own:

    pip install --no-deps --target peers pcodec zfpy==1.0.1
    PYTHONPATH=peers python tests/benchmarks/compression.py
"""

import argparse
import importlib.metadata
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numcodecs import Blosc

from thermodl.record.settings import make_settings
from thermodl.record.snapshots import PERIOD, SnapshotEncoder, decode
from thermodl.record.store import open_run
from thermodl.record.train import train

CHUNK = 2**20
WIDTH = 16
"""as in the store, for models of up to 2¹⁸ parameters"""
TOLERANCES = (0.1, 0.01, 0.0)
PACKED = Blosc("zstd", clevel=1, shuffle=Blosc.BITSHUFFLE)

Codec = tuple[Callable[[np.ndarray], bytes], Callable[[bytes, tuple[int, int]], np.ndarray]]
"""encode a chunk (parameter, snapshot) of float32, and decode it to its shape"""


@dataclass(frozen=True)
class Row:
    """One codec on one trajectory."""

    name: str
    stored: int
    """bytes"""
    back: np.ndarray
    """(parameter, snapshot) as decoded"""
    seconds: tuple[float, float]
    """to encode and to decode"""


def best(work: Callable[[], object]) -> float:
    """CPU seconds, the least of three."""
    times = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def chunks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Places of the chunks of an array of 4-byte numbers, a row of chunks after the other."""
    block = CHUNK // (4 * WIDTH)
    for n in range(0, shape[1], WIDTH):
        for p in range(0, shape[0], block):
            yield slice(p, p + block), slice(n, n + WIDTH)


def pack(codes: np.ndarray) -> list[bytes]:
    """As zarr stores them."""
    return [PACKED.encode(np.ascontiguousarray(codes[part])) for part in chunks(codes.shape)]


def ours(theta: np.ndarray, sizes: list[int], tolerance: float) -> Row:
    """The format's own code; the trajectory begins at the initial parameters."""
    rows = np.ascontiguousarray(theta.T)
    layer = np.repeat(np.arange(len(sizes)), sizes)

    def encode() -> tuple[list[bytes], np.ndarray, np.ndarray]:
        codes, quanta, errors = SnapshotEncoder(rows[0].copy(), sizes, tolerance, PERIOD).encode(rows.T)
        return pack(codes), quanta, errors

    def read() -> np.ndarray:
        codes = np.empty(theta.shape, np.uint32)
        for part, data in zip(chunks(theta.shape), packed, strict=True):
            codes[part] = np.frombuffer(PACKED.decode(data), np.uint32).reshape(codes[part].shape)
        return decode(codes, quanta, layer, rows[0], PERIOD)

    packed, quanta, errors = encode()
    stored = sum(map(len, packed)) + len(PACKED.encode(quanta)) + len(PACKED.encode(errors))
    name = f"ThermoDL, tolerance {tolerance:g}" if tolerance else "ThermoDL, lossless"
    return Row(name, stored, read(), (best(encode), best(read)))


def theirs(name: str, codec: Codec, theta: np.ndarray) -> Row:
    """Any codec of chunks."""
    blocks = [np.ascontiguousarray(theta[part]) for part in chunks(theta.shape)]
    encode, read = codec
    data = [encode(block) for block in blocks]
    back = np.empty_like(theta)
    for part, one, block in zip(chunks(theta.shape), data, blocks, strict=True):
        back[part] = read(one, block.shape)
    seconds = (
        best(lambda: [encode(block) for block in blocks]),
        best(lambda: [read(one, block.shape) for one, block in zip(data, blocks, strict=True)]),
    )
    return Row(name, sum(map(len, data)), back, seconds)


def blosc(shuffle: int) -> Codec:
    """zstd level 1 behind a shuffle of the bytes or bits."""
    packer = Blosc("zstd", clevel=1, shuffle=shuffle)
    return packer.encode, lambda data, shape: np.frombuffer(packer.decode(data), np.float32).reshape(shape)


def bit_round(bits: int) -> Codec:
    """Keep so many bits of the mantissa, rounded to nearest, then zstd behind a bit shuffle."""
    drop = 23 - bits

    def encode(block: np.ndarray) -> bytes:
        whole = block.view(np.uint32)
        half = np.uint32((1 << (drop - 1)) - 1) + ((whole >> np.uint32(drop)) & np.uint32(1))
        return PACKED.encode((whole + half) & ~np.uint32((1 << drop) - 1))

    return encode, blosc(Blosc.BITSHUFFLE)[1]


def pcodec() -> Codec:
    """At its own best guess, level 8."""
    from pcodec import ChunkConfig, standalone

    config = ChunkConfig(compression_level=8)
    return (
        lambda block: standalone.simple_compress(block.ravel(), config),
        lambda data, shape: np.asarray(standalone.simple_decompress(data)).reshape(shape),
    )


def zfp(error: float) -> Codec:
    """To an absolute error, in two dimensions."""
    import zfpy

    return lambda block: zfpy.compress_numpy(block, tolerance=error), lambda data, _: zfpy.decompress_numpy(data)


def missing(package: str) -> str:
    """Why a package cannot be measured; empty if it can."""
    if importlib.util.find_spec(package) is None:
        return "it cannot be imported"
    version = importlib.metadata.version(package)
    if package == "zfpy" and "post" in version:
        # numcodecs takes its version apart into whole numbers; then zarr cannot be imported either.
        return f"{version} breaks the import of numcodecs; 1.0.1 does not"
    return ""


def displacements(theta: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Rms displacement between snapshots, (layer, snapshot − 1)."""
    squares = np.diff(theta.astype(np.float64), axis=1) ** 2
    starts = np.cumsum([0, *sizes[:-1]])
    return np.sqrt(np.add.reduceat(squares, starts, axis=0) / np.array(sizes)[:, None])


def describe(row: Row, theta: np.ndarray, sizes: list[int], moved: np.ndarray) -> str:
    """One line of the table."""
    starts, share = np.cumsum([0, *sizes[:-1]]), np.array(sizes)[:, None] / len(theta)
    wrong = (row.back.astype(np.float64) - theta)[:, 1:] ** 2
    mean = np.add.reduceat(wrong, starts, axis=0) / np.array(sizes)[:, None]
    relative = mean / moved**2
    error, bits = np.sqrt(np.mean(relative * share) * len(sizes)), 8 * row.stored / theta.size
    bound = "–"
    if error:
        # By layers: no bits for one whose error is as large as its motion.
        each = np.maximum(0.0, -0.5 * np.log2(np.maximum(relative, 1e-30)))
        bound = f"{np.mean(each * share) * len(sizes):.2f}"
    encode, read = (theta.nbytes / seconds / 1e6 for seconds in row.seconds)
    return (
        f"{row.name:<34}{theta.nbytes / row.stored:>7.2f}{bits / 8:>9.3f}{bits:>8.2f}{error:>11.2g}{bound:>8}"
        f"{encode:>9.0f}{read:>9.0f}"
    )


def record(arguments: argparse.Namespace, folder: Path) -> Path:
    """A recording of the built-in training whose snapshots are exact."""
    stop = arguments.start + arguments.steps
    settings = make_settings(
        {
            "model": arguments.model,
            "steps": stop,
            "evaluate_every": 0,
            "recorder": {
                "snapshot_every": list(range(arguments.start, stop, arguments.every)),
                "probe_every": 0,
                "sketch_size": 0,
            },
        }
    )
    train(settings, folder)
    return folder


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1280)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--run", type=Path, help="a recording with exact snapshots, instead of a new one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(arguments.run or record(arguments, Path(folder) / "run"))
        theta, sizes = run["parameters"].values, [layer["size"] for layer in run.attrs["layers"]]
        steps = run["snapshot_step"].values
    moved = displacements(theta, sizes)
    print(
        f"{theta.shape[1]} snapshots of {theta.shape[0]:,} parameters at steps {steps[0]} to {steps[-1]}; "
        f"rms displacement {np.sqrt(np.mean(moved**2)):.2g}"
    )
    print(f"{'':<34}{'ratio':>7}{'B/value':>9}{'bits':>8}{'rms error':>11}{'bound':>8}{'enc MB/s':>9}{'dec MB/s':>9}")
    for tolerance in TOLERANCES:
        print(describe(ours(theta, sizes, tolerance), theta, sizes, moved), flush=True)
    typical = float(np.median(moved[np.argmax(sizes)]))
    others: list[tuple[str, str, Callable[[], Codec]]] = [
        ("zstd 1 + shuffle", "numcodecs", lambda: blosc(Blosc.SHUFFLE)),
        ("zstd 1 + bitshuffle", "numcodecs", lambda: blosc(Blosc.BITSHUFFLE)),
        ("pcodec 8", "pcodec", pcodec),
        *[(f"zfp, |error| ≤ {t:g} motions", "zfpy", lambda t=t: zfp(t * typical)) for t in TOLERANCES[:2]],
        *[(f"BitRound {n} + zstd 1 + bitshuffle", "numcodecs", lambda n=n: bit_round(n)) for n in (8, 12, 16)],
    ]
    for name, package, make in others:
        why = missing(package)
        line = f"{name:<34}not measured: {why}" if why else describe(theirs(name, make(), theta), theta, sizes, moved)
        print(line, flush=True)


if __name__ == "__main__":
    main()
