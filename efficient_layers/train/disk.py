# SPDX-License-Identifier: Apache-2.0
"""Files that survive a crash: atomic JSON, checksums, a probe of the disk before work starts."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

_PROBE_BYTES = 1 << 16  # larger than any inline or compressed block, so a full disk says so
_CHUNK = 1 << 22  # read size of a checksum; zlib releases the GIL on it


class DiskError(RuntimeError):
    """A folder or file cannot be used; the message says why and what to do."""


def free_bytes(path: Path) -> int:
    """Bytes this user may still write on the file system of `path`."""
    stats = os.statvfs(path)
    return stats.f_bavail * stats.f_frsize


def mib(count: int) -> str:
    """`count` bytes for a message: `"14.3 MiB"`."""
    return f"{count / 2**20:.1f} MiB"


def require_free(path: Path, need_bytes: int, purpose: str) -> None:
    """Raise `DiskError` when `path` has less than `need_bytes` free."""
    free = free_bytes(path)
    if free < need_bytes:
        raise DiskError(
            f"{path}: the disk has {mib(free)} free, {purpose} needs {mib(need_bytes)}. "
            "Free some space or choose a folder on another disk."
        )


def probe(folder: Path, need_bytes: int = 0) -> None:
    """Make `folder` and prove that it can be written, with at least `need_bytes` free.

    A real file is written, synced and removed: permissions, read-only mounts, quotas and full
    disks all look alike to `os.access`, and none of them does to a write.

    Raises:
        DiskError: not a folder, no permission, read-only, full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DiskError(f"{folder} cannot be a folder: a file has that name.") from None
    except OSError as error:
        raise DiskError(f"{folder} cannot be made: {error.strerror}.") from error
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".probe-") as file:
            file.write(os.urandom(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DiskError(
            f"{folder} cannot be written: {error.strerror}. Check its permissions and the space "
            "left on its disk, or choose another folder."
        ) from error
    require_free(folder, need_bytes, "this run")


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable; a file system that cannot is left alone."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON: readers see the old file or the new one, whole."""
    text = json.dumps(value, indent=1) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise DiskError(f"{path} cannot be written: {error.strerror}.") from error
    sync_folder(path.parent)


def read_json(path: Path) -> Any:
    """The value in `path`; `DiskError` when it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DiskError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise DiskError(f"{path} cannot be read: {error}.") from error


def checksum(path: Path) -> int:
    """CRC-32 of a file: finds any single flipped burst up to 32 bits, others but for 2**-32."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def sums(folder: Path) -> dict[str, tuple[int, int]]:
    """(bytes, CRC-32) of every file under `folder`, by its path from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_size, checksum(p)) for p in files}


def damage(folder: Path, expected: dict[str, tuple[int, int]]) -> str | None:
    """What is wrong with the first bad file of `expected`, or None when all are as written."""
    for name, (size, crc) in expected.items():
        path = folder / name
        try:
            found = path.stat().st_size
            if found != size:
                return f"{name} has {found} bytes, {size} were written"
            if checksum(path) != crc:
                return f"{name} has changed since it was written (checksum)"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return None
