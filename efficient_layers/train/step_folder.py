# SPDX-License-Identifier: Apache-2.0
"""One checkpoint on disk: `<step>/state/` (arrays), `<step>/manifest.json` (everything else).

The manifest is written last, inside `<step>.tmp/`, and the folder then gets its name by one rename:
a folder named by digits alone is complete. It holds sizes and checksums of every other file, a
checksum of itself, the tree of shapes and dtypes, the loop's own `extra`, and why it is kept.

    <step>.tmp       a save in progress, or what a killed one left
    <step>.old       the previous save of the same step, for the moment of the swap
    <step>.removed   a deleted one, for the moment of the deletion
    <step>.corrupt   put aside by a restore that fell back; removed after the next complete save
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
import zlib
from pathlib import Path
from typing import Any

from efficient_layers.train import disk, tree_paths

_log = logging.getLogger(__name__)
SCHEMA = 1
STATE = "state"
_MANIFEST = "manifest.json"


class CheckpointError(disk.DiskError):
    """A checkpoint is missing, damaged, or could not be written."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says. `sequence` counts the saves of a workdir: the newest is highest.

    `tree` rows are [path, shape, dtype]; `files` map a path to (bytes, CRC-32).
    """

    step: int
    sequence: int
    permanent: bool
    best_metric: str | None
    best_mode: str
    metrics: dict[str, float]
    extra: dict[str, Any]
    tree: list[tuple[list[str], list[int], str]]
    files: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def shapes(self) -> dict[tree_paths.Path, tuple[tuple[int, ...], str]]:
        """(shape, dtype name) of each leaf by path."""
        return {tuple(path): (tuple(shape), dtype) for path, shape, dtype in self.tree}


def _crc(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def read(folder: Path) -> Manifest:
    """The manifest of `folder`; `CheckpointError` when it is missing, damaged or too new."""
    try:
        document = disk.read_json(folder / _MANIFEST)
    except disk.DiskError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(document, dict) or not isinstance(document.get("manifest"), dict):
        raise CheckpointError(f"{folder / _MANIFEST} is not a checkpoint manifest.")
    body = document["manifest"]
    schema = body.get("schema", 0)
    if isinstance(schema, int) and schema > SCHEMA:
        raise CheckpointError(
            f"{folder} was written by a newer efficient_layers (schema {schema}, this one reads "
            f"{SCHEMA}). Update the library."
        )
    if document.get("crc32") != _crc(body):
        raise CheckpointError(f"{folder / _MANIFEST} has changed since it was written (checksum).")
    return Manifest(**body)


def commit(temporary: Path, folder: Path, manifest: Manifest) -> Manifest:
    """Seal `temporary` with `manifest` (its `files` are filled in here) and name it `folder`."""
    manifest = dataclasses.replace(manifest, files=disk.sums(temporary))
    body = json.loads(json.dumps(dataclasses.asdict(manifest)))
    disk.write_json(temporary / _MANIFEST, {"crc32": _crc(body), "manifest": body})
    old = folder.with_name(f"{folder.name}.old")
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    disk.sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
    return manifest


def scan(directory: Path) -> tuple[dict[int, Manifest], dict[int, str]]:
    """Complete checkpoints of `directory` by step, and for each broken one the reason."""
    good: dict[int, Manifest] = {}
    broken: dict[int, str] = {}
    for folder in directory.iterdir() if directory.is_dir() else ():
        if not (folder.name.isdecimal() and folder.is_dir()):
            continue
        try:
            good[int(folder.name)] = read(folder)
        except CheckpointError as error:
            broken[int(folder.name)] = str(error)
    return good, broken


def newest_first(manifests: dict[int, Manifest]) -> list[int]:
    """Steps in the order of writing, the last one first."""
    known = manifests.copy()  # the background thread may add to it meanwhile
    return sorted(known, key=lambda step: known[step].sequence, reverse=True)


def best(manifests: dict[int, Manifest], metric: str | None, mode: str) -> int | None:
    """The step with the best `metric`: the first of equals, never a NaN, None without any."""
    chosen: int | None = None
    for step, manifest in sorted(manifests.copy().items()):
        value = manifest.metrics.get(metric or "", math.nan)
        if math.isnan(value):
            continue
        if chosen is None or better(value, manifests[chosen].metrics[metric or ""], mode):
            chosen = step
    return chosen


def better(new: float, old: float, mode: str) -> bool:
    """Whether `new` improves on `old`; `mode` is `"max"` or `"min"`."""
    return new > old if mode == "max" else new < old


def repair(directory: Path) -> None:
    """Finish or remove what a killed writer left. Only for the one writer of `directory`."""
    for old in directory.glob("*.old"):
        folder = old.with_suffix("")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(folder)
    for removed in directory.glob("*.removed"):
        shutil.rmtree(removed, ignore_errors=True)
    for temporary in directory.glob("*.tmp"):
        _log.warning("%s: an unfinished save was left here; it is removed", temporary)
        shutil.rmtree(temporary, ignore_errors=True)


def remove(folder: Path) -> None:
    """Delete a checkpoint: renamed first, so that a kill cannot leave half of one behind."""
    doomed = folder.with_name(f"{folder.name}.removed")
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        _log.warning("%s could not be removed: %s", folder, error)


def put_aside(folder: Path) -> None:
    """Rename a damaged checkpoint to `<step>.corrupt`, where no restore looks."""
    target = folder.with_name(f"{folder.name}.corrupt")
    shutil.rmtree(target, ignore_errors=True)
    try:
        folder.rename(target)
    except OSError as error:
        _log.warning("%s could not be put aside: %s", folder, error)


def forget_corrupt(directory: Path) -> None:
    """Remove what `put_aside` left."""
    for folder in directory.glob("*.corrupt"):
        shutil.rmtree(folder, ignore_errors=True)
