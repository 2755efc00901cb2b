# SPDX-License-Identifier: Apache-2.0
"""Packed files: byte by byte, every kind of layer there and back, damage, sizes."""

import dataclasses
import functools
import json
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, layers, measure
from efficient_layers.models import WeightsError
from tests.compress.test_apply import made, same
from tests.compress.test_quantize import Net

MAGIC = b"\x93ELPACK\n"


class Tiny(nnx.Module):
    """16 codes and a scale."""

    def __init__(self):
        self.codes = layers.QuantParam(jnp.asarray(np.repeat(np.arange(4), [8, 4, 2, 2]), jnp.int8))
        self.scale = nnx.Param(jnp.float32(1.5))


class Mixed(nnx.Module):
    """A tied layer, RNG state, integers of 4 bits, a bare array, eleven in a list, a cache."""

    def __init__(self, seed: int = 0):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(3, 3, rngs=rngs)
        self.tied = self.first
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(3, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, rngs=rngs)
        self.int4 = nnx.Variable(jnp.arange(seed - 8, seed).astype(jnp.int4))
        self.list = nnx.List([nnx.Param(jnp.full(3, seed + i)) for i in range(11)])
        self.cache = nnx.Cache(jnp.zeros((2, 0, 4)))
        self.key = nnx.Variable(jax.random.key(seed, impl="rbg"))


def packed_by_hand(text: bytes, data: bytes, *, version: int = 1, size: int | None = None) -> bytes:
    """A file as the module's docstring says."""
    deflated = zlib.compress(text, 9)
    numbers = struct.pack("<3I", version, len(deflated), len(text) if size is None else size)
    return MAGIC + numbers + struct.pack("<I", zlib.crc32(numbers + deflated)) + deflated + data


def header(data: bytes, **changes) -> bytes:
    """Of a `Tiny`."""
    columns = {
        "about": {"edits": []},
        "path": ["codes", "scale"],
        "dtype": ["int8", "float32"],
        "shape": [[16], []],
        "encoding": ["huffman", "raw"],
        "bytes": [len(data) - 4, 4],
        "crc": [zlib.crc32(data[:-4]), zlib.crc32(data[-4:])],
    }
    return json.dumps(columns | changes, separators=(",", ":")).encode()


# 8 zeros, 4 ones, 2 twos, 2 threes: a span of 4 values from 0 on, all there, of 1 2 3 3 bits.
TABLE = [4, 4, 0, 0b1111_0000, 0x12, 0x33]
CODES = [0b0000_0000, 0b10_10_10_10, 0b110_110_11, 0b1_111_0000]
DATA = bytes(TABLE + CODES) + struct.pack("<f", 1.5)


def test_a_file_byte_by_byte(tmp_path):
    path = tmp_path / "tiny.packed"
    size = compress.save_packed(Tiny(), path, about={"edits": []})
    assert path.read_bytes() == packed_by_hand(header(DATA), DATA)
    assert size.stored_bytes == path.stat().st_size
    assert compress.read_about(path) == {"edits": []}
    assert [(r.path, r.raw_bytes, r.stored_bytes) for r in size.rows] == [
        ("codes", 16, 10),
        ("scale", 4, 4),
    ]
    assert size.rows[0].entropy == 1.75
    assert not list(tmp_path.glob("*.unfinished"))
    model = Tiny()
    model.scale.set_value(jnp.float32(0))
    assert compress.load_packed(model, path) is model
    same(model, Tiny())


def test_whatever_a_model_holds(tmp_path):
    path = tmp_path / "mixed.packed"
    model = Mixed(1)
    size = compress.save_packed(model, path)
    assert compress.read_about(path) is None
    assert sum("kernel" in row.path for row in size.rows) == 1  # the tied layer once
    for other in (Mixed(2), nnx.eval_shape(Mixed)):
        again = compress.load_packed(other, path)
        same(again, model)
        assert again.tied is again.first


@functools.cache
def base() -> Net:
    return made(Net)


EDGES = {"keep_ends": False}
STEPS = {
    "pruned": [compress.Prune("**", sparsity=0.8)],
    "low rank, then int8": [
        compress.LowRank("hidden", rank=2),
        compress.Quantize("**", bits=8, **EDGES),
    ],
    "int4": [compress.Quantize("**", bits=4, **EDGES)],
    "int4, zero points": [compress.Quantize("hidden", bits=4, symmetric=False)],
    "int3 in groups": [compress.Quantize("hidden", bits=3, granularity="group", group_size=4)],
    "ternary": [compress.Quantize("conv", bits=2, method="ternary")],
    "binary": [compress.Quantize("conv", bits=1, method="binary")],
    "dynamic": [compress.Quantize("conv", activations="dynamic")],
    "clustered": [compress.Cluster("**", bits=3)],
    "learned": [compress.Quantize("hidden", bits=4, mode="qat", method="lsq")],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_every_kind_of_layer_there_and_back(tmp_path, steps):
    path = tmp_path / "model.packed"
    small, log = compress.apply(base(), steps)
    compress.save_packed(small, path, about={"edits": log.edits})
    empty = compress.rebuild(nnx.eval_shape(base), compress.read_about(path)["edits"])
    same(compress.load_packed(empty, path), small)


def test_all_that_does_not_fit_is_listed_and_nothing_is_filled(tmp_path):
    path = tmp_path / "tiny.packed"
    compress.save_packed(Tiny(), path)

    class Other(nnx.Module):
        def __init__(self):
            self.codes = layers.QuantParam(jnp.zeros((16,), jnp.uint8))
            self.scale = nnx.Param(jnp.zeros((1,)))
            self.bias = nnx.Param(jnp.zeros((2,)))

    model = Other()
    with pytest.raises(WeightsError) as error:
        compress.load_packed(model, path)
    for line in (
        "3 of 3 entries differ",
        "codes: int8[16]; expects uint8[16]",
        "scale: float32[]; expects float32[1]",
        "bias: missing; expects float32[2]",
        "el.compress.rebuild",
    ):
        assert line in str(error.value)
    with pytest.raises(WeightsError, match=r"codes: unexpected int8\[16\]"):
        compress.load_packed(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), path)
    same(model, Other())


def test_every_flipped_byte_is_found(tmp_path):
    path, whole = tmp_path / "tiny.packed", tmp_path / "whole.packed"
    compress.save_packed(Tiny(), whole, about={"edits": []})
    data = whole.read_bytes()
    damaged = [bytes([*data[:i], data[i] ^ flip, *data[i + 1 :]])
               for i in range(len(data)) for flip in (1, 0x80, 0xFF)]  # fmt: skip
    damaged += [data[:size] for size in range(len(data))] + [data + b"\0"]
    model = Tiny()
    for wrong in damaged:
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"tiny\.packed (is|has)"):
            compress.load_packed(model, path)
    same(model, Tiny())


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (packed_by_hand(header(DATA), DATA, version=2), "version 2. This reads version 1"),
        (packed_by_hand(header(DATA), DATA, size=1 << 31), "is damaged"),
        (packed_by_hand(b" " * (1 << 20), b"", size=1000), "has not 1000 bytes"),
        (packed_by_hand(b"[" * 100_000, b""), "not understood"),
        (packed_by_hand(b"[]", b""), "not understood"),
        (packed_by_hand(b"\xff\xfe", b""), "not understood"),
        (packed_by_hand(b"{}", b""), "not understood"),
        (packed_by_hand(header(DATA, bytes=[1 << 60, 4]), DATA), "in place of"),
        (packed_by_hand(header(DATA, bytes=[-4, 18]), DATA), "-4 is no bytes"),
        (packed_by_hand(header(DATA, bytes=[10.0, 4]), DATA), "10.0 is no bytes"),
        (packed_by_hand(header(DATA, bytes=[14]), DATA), "not understood"),
        (packed_by_hand(header(DATA, path=["codes", "codes"]), DATA), "twice"),
        (packed_by_hand(header(DATA, shape=[[-16], []]), DATA), "is no shape"),
        (packed_by_hand(header(DATA, shape=[[1 << 60], []]), DATA), "expects int8.16."),
        (packed_by_hand(header(DATA, dtype=["object", "float32"]), DATA), "expects int8.16."),
        (packed_by_hand(header(DATA, encoding=["pickle", "raw"]), DATA), "'pickle' is not known"),
        (packed_by_hand(header(DATA, encoding=["planes", "raw"]), DATA), "planes"),
        (packed_by_hand(header(DATA, encoding=["raw", "raw"]), DATA), "16 bytes are needed"),
    ],
)
def test_files_made_to_mislead(tmp_path, file, message):
    path = tmp_path / "tiny.packed"
    path.write_bytes(file)
    with pytest.raises(ValueError, match=message):
        compress.load_packed(Tiny(), path)


def test_other_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match="No packed file"):
        compress.load_packed(Tiny(), tmp_path / "nothing")
    with pytest.raises(TypeError, match="JSON"):
        compress.save_packed(Tiny(), tmp_path / "a", about={"act": jax.nn.relu})
    with pytest.raises(ValueError, match="Tiny has no values yet: codes, scale"):
        compress.packed_size(nnx.eval_shape(Tiny))
    assert not list(tmp_path.iterdir())
    for text in (b"", b"PK\3\4" * 20):
        (tmp_path / "a").write_bytes(text)
        with pytest.raises(ValueError, match="is no packed file"):
            compress.read_about(tmp_path / "a")


class Images(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.wide = nnx.Conv(32, 64, (3, 3), use_bias=False, rngs=rngs)
        self.deep = nnx.Conv(64, 64, (3, 3), use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.deep(jax.nn.relu(self.wide(x)))


def test_a_net_of_four_bits_and_a_fifth_of_its_weights():
    model = made(Images)
    steps = [
        compress.Prune("**", sparsity=0.8),
        compress.Quantize("**", bits=4, keep_ends=False),
    ]
    small, _ = compress.apply(model, steps)
    weights = 9 * (32 * 64 + 64 * 64)
    size = compress.packed_size(small)
    codes = [row for row in size.rows if row.path.endswith("codes")]
    assert {row.encoding for row in codes} == {"bits4+gaps+huffman"}
    for row in codes:  # two codes a byte; no code of single ones takes less than their entropy
        least = row.entropy * 2 * row.raw_bytes / 8
        assert least < row.stored_bytes < 1.06 * least + 100
        assert 1.0 < row.entropy < 1.5  # a place takes 0.72 bits, a fifth of them a code of 3
    assert 20 < 4 * weights / size.stored_bytes < 32  # 32 bits to 1.3, and a scale a channel
    assert size.raw_bytes == measure.cost(small, jnp.ones((1, 8, 8, 32))).weight_bytes


def test_deep_compression():
    """Pruned, 5 bits, Huffman: the paper's chain for a linear layer, without training."""

    class Dense(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.wide = nnx.Linear(300, 100, use_bias=False, rngs=rngs)

        def __call__(self, x):
            return self.wide(x)

    steps = [compress.Prune("wide", sparsity=0.92), compress.Cluster("wide", bits=5)]
    small, _ = compress.apply(made(Dense), steps)
    (row,) = (r for r in compress.packed_size(small).rows if r.path == "wide/codes")
    assert row.encoding == "bits5of100+gaps+huffman"
    assert row.stored_bytes * 8 < 30_000 * 0.85  # 0.40 bits a place, 0.08 codes of 5 bits


def test_the_size_as_a_table_and_as_json():
    size = compress.packed_size(Tiny(), about={"edits": []})
    lines = str(size).splitlines()
    assert lines[0].split() == ["array", "raw", "stored", "times", "entropy", "encoding"]
    assert lines[1].split() == ["codes", "16", "10", "1.60", "1.75", "huffman"]
    assert lines[-1].split()[:3] == ["total", "20", str(size.stored_bytes)]
    back = json.loads(json.dumps(size.to_json()))
    assert back["stored_bytes"] == size.stored_bytes == size.header_bytes + 14
    assert back["rows"][0] == dataclasses.asdict(size.rows[0])
