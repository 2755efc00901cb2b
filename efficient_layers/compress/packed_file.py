# SPDX-License-Identifier: Apache-2.0
"""A model in one file, every array in its smallest encoding: Deep Compression's last stage.

The file, numbers little-endian:

    8 bytes   b"\\x93ELPACK\\n"
    4 x 4     version (1), bytes of the header in the file, bytes of its text, CRC-32 of the three
              numbers before it and the header
    header    deflated JSON: {"about": anything or null, "path": [...], "dtype": [...],
              "shape": [[...], ...], "encoding": [...], "bytes": [...], "crc": [...]}, an element an
              array
    arrays    one behind another in this order, each as `packed_array.py` says, CRC-32 `crc`

No byte of it stands outside of a checksum. Nothing in it is executed, and nothing is decoded before
sizes, checksums and the model's own shapes and dtypes agree with it.

Reference: Han et al., *Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
Quantization and Huffman Coding* (arXiv 1510.00149).
"""

import dataclasses
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from efficient_layers.compress.edits import variables
from efficient_layers.compress.packed_array import pack_array, unpack_array
from efficient_layers.models.entries import Kind, arrays_of, check_kinds, fill

_MAGIC = b"\x93ELPACK\n"
_VERSION = 1
_START = struct.Struct("<8s4I")
_MOST_TEXT = 1 << 28  # bytes of a header's text
_COLUMNS = {"path": str, "dtype": str, "shape": list, "encoding": str, "bytes": int, "crc": int}


@dataclasses.dataclass(frozen=True)
class PackedRow:
    """An array of a packed file. `entropy`: bits a value, each coded on its own."""

    path: str
    raw_bytes: int
    stored_bytes: int
    encoding: str
    entropy: float


@dataclasses.dataclass(frozen=True)
class PackedSize:
    """What a packed file holds, a row an array; `str` is a table.

    `raw_bytes` are those of the arrays in memory, `stored_bytes` those of the whole file.
    """

    rows: tuple[PackedRow, ...]
    header_bytes: int

    @property
    def raw_bytes(self) -> int:
        return sum(row.raw_bytes for row in self.rows)

    @property
    def stored_bytes(self) -> int:
        return self.header_bytes + sum(row.stored_bytes for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, totals included."""
        totals = {"raw_bytes": self.raw_bytes, "stored_bytes": self.stored_bytes}
        return dataclasses.asdict(self) | totals

    def __str__(self) -> str:
        head = ("array", "raw", "stored", "times", "entropy", "encoding")
        rows = [
            _line(r.path, r.raw_bytes, r.stored_bytes, f"{r.entropy:.2f}", r.encoding)
            for r in self.rows
        ]
        header = _line("(header)", 0, self.header_bytes, "", "deflated JSON")
        total = _line("total", self.raw_bytes, self.stored_bytes, "", "")
        lines = [head, *rows, header, total]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if 0 < place < 5 else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def save_packed(model: nnx.Module, path: str | Path, *, about: Any = None) -> PackedSize:
    """Writes every Variable of `model` to a file; gives its size, array by array.

    Of tied modules one copy is written. Zeros are found in the arrays as they are, and few
    different values too: pruned, clustered and quantised models need no more than this.

    Args:
      about: JSON to keep with it, `{"create": ..., "edits": log.edits}` say: see `read_about`.

    Raises:
      ValueError: an abstract model.
      TypeError: `about` is no JSON.
    """
    path = Path(path)
    head, size, data = _packed(model, about)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(b"".join([head, *data]))
    os.replace(unfinished, path)
    return size


def packed_size(model: nnx.Module, *, about: Any = None) -> PackedSize:
    """The size of the file that `save_packed` would write, array by array."""
    return _packed(model, about)[1]


def load_packed(model: nnx.Module, path: str | Path) -> nnx.Module:
    """Fills `model`, which may be abstract, with what `save_packed` wrote; gives it back.

    Bit-equal. Where anything does not fit, nothing is changed. A compressed model's structure is
    built first: `el.compress.rebuild(base, read_about(path)["edits"])`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: no packed file, or a damaged one.
      WeightsError: entries are missing, unexpected, or of another shape or dtype; all are listed.
    """
    path = Path(path)
    header, start = _read_header(path)
    check_kinds(model, {entry.path: entry.kind for entry in header.entries}, str(path))
    data = memoryview(path.read_bytes())
    arrays = {}
    for entry in header.entries:
        part = data[start : start + entry.size]
        start += entry.size
        if zlib.crc32(part) != entry.crc:
            raise ValueError(f"{path} is damaged: the checksum of {entry.path} is another.")
        shape, dtype = entry.kind
        try:
            arrays[entry.path] = unpack_array(entry.encoding, part, shape, jnp.dtype(dtype))
        except ValueError as error:
            raise ValueError(f"{path}: {entry.path} ({entry.encoding}): {error}") from error
    fill(model, arrays)
    return model


def read_about(path: str | Path) -> Any:
    """The `about` that `save_packed` was given; reads the header alone.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: no packed file, or a damaged one.
    """
    return _read_header(Path(path))[0].about


class _Entry(NamedTuple):
    path: str
    kind: Kind
    encoding: str
    size: int
    crc: int


class _Header(NamedTuple):
    about: Any
    entries: list[_Entry]


def _packed(model: nnx.Module, about: Any) -> tuple[bytes, PackedSize, list[bytes]]:
    """Everything before the arrays, the size, the arrays."""
    arrays = arrays_of(model)
    rows = _code_rows(model)
    packed = {path: pack_array(array, row=rows.get(path)) for path, array in arrays.items()}
    columns = {
        "path": list(packed),
        "dtype": [str(array.dtype) for array in arrays.values()],
        "shape": [list(array.shape) for array in arrays.values()],
        "encoding": [p.encoding for p in packed.values()],
        "bytes": [len(p.data) for p in packed.values()],
        "crc": [zlib.crc32(p.data) for p in packed.values()],
    }
    text = json.dumps({"about": about, **columns}, separators=(",", ":")).encode()
    head = _header(text)
    size = PackedSize(
        tuple(
            PackedRow(path, arrays[path].nbytes, len(p.data), p.encoding, p.entropy)
            for path, p in packed.items()
        ),
        header_bytes=len(head),
    )
    return head, size, [p.data for p in packed.values()]


def _code_rows(model: nnx.Module) -> dict[str, int]:
    """Path of a Variable of packed codes -> how many its last axis holds."""
    shapes = {path: v.get_metadata("logical_shape", None) for path, v in variables(model)}
    return {path: shape[-1] for path, shape in shapes.items() if shape}


def _header(text: bytes) -> bytes:
    deflated = zlib.compress(text, 9)
    numbers = (_VERSION, len(deflated), len(text))
    crc = zlib.crc32(deflated, zlib.crc32(struct.pack("<3I", *numbers)))
    return _START.pack(_MAGIC, *numbers, crc) + deflated


def _read_header(path: Path) -> tuple[_Header, int]:
    """The header, and where the arrays begin."""
    if not path.is_file():
        raise FileNotFoundError(f"No packed file at {path}.")
    length = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_START.size)
        if len(start) < _START.size or not start.startswith(_MAGIC):
            raise ValueError(f"{path} is no packed file: save_packed writes them.")
        _, version, size, text_size, crc = _START.unpack(start)
        if version != _VERSION:
            raise ValueError(f"{path} is of version {version}. This reads version {_VERSION}.")
        if size > length - _START.size or text_size > _MOST_TEXT:
            raise ValueError(f"{path} is damaged: it has {length} bytes, its header {size}.")
        deflated = file.read(size)
    if zlib.crc32(deflated, zlib.crc32(start[8:20])) != crc:
        raise ValueError(f"{path} is damaged: the checksum of its header is another.")
    try:
        header = _parsed(_inflated(deflated, text_size))
    except (ValueError, KeyError, TypeError, RecursionError, zlib.error) as error:
        raise ValueError(f"{path} has a header that is not understood: {error}.") from error
    expected = _START.size + size + sum(entry.size for entry in header.entries)
    if length != expected:
        raise ValueError(f"{path} is damaged: {length} bytes in place of {expected}.")
    return header, _START.size + size


def _inflated(deflated: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    text = stream.decompress(deflated, size + 1)
    if len(text) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"its text has not {size} bytes")
    return text


def _parsed(text: bytes) -> _Header:
    header = json.loads(text)
    columns = [header[name] for name in _COLUMNS]
    entries = []
    for row in zip(*columns, strict=True):
        for (name, kind), value in zip(_COLUMNS.items(), row, strict=True):
            if type(value) is not kind or (isinstance(value, int) and value < 0):
                raise ValueError(f"{value!r} is no {name}")
        path, dtype, shape, encoding, size, crc = row
        if any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"{shape!r} is no shape")
        entries.append(_Entry(path, Kind(tuple(shape), dtype), encoding, size, crc))
    if len({entry.path for entry in entries}) < len(entries):
        raise ValueError("a path is there twice")
    return _Header(header["about"], entries)


def _line(name: str, raw: int, stored: int, entropy: str, encoding: str) -> tuple[str, ...]:
    times = f"{raw / stored:.2f}" if raw and stored else ""
    return name, f"{raw:,}", f"{stored:,}", times, entropy, encoding
