# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: asynchronous saves, what is kept, and a restore that never trusts a file blindly.

Kept are the newest save, every `permanent_every_steps`-th, and the best by a metric. An older save
is deleted only when the next one is complete. What is kept and why stands in each checkpoint's own
manifest (`step_folder.py`), so it survives a restart. Orbax writes and reads the arrays; neither it
nor its OCDBT files notice every flipped bit, so each file's CRC-32 is checked before it is trusted.

A save that fails in the background does not stop the run: the training state is in memory and the
previous checkpoint is untouched. It is logged as an error and tried again within a minute;
`wait` and `close` raise it when the last save of a run is the one that failed.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
from jax.experimental import multihost_utils

from efficient_layers.train import disk, placement, step_folder, tree_paths
from efficient_layers.train.step_folder import CheckpointError, Manifest
from efficient_layers.train.tree_paths import CheckpointMismatchError

__all__ = ["CheckpointError", "CheckpointMismatchError", "Checkpointer"]

PyTree = Any
_log = logging.getLogger(__name__)
_RETRY_S = 60.0  # a failed save is tried again after this, or earlier where saves are due earlier
_AGREE_STEPS = 16  # several processes compare clocks only at multiples of this step


class Checkpointer:
    """Saves and restores `directory/<step>/`. One writer at a time (the workdir's lock).

    Args:
        temporary_every_s: seconds between temporary saves, on a monotonic clock.
        permanent_every_steps: steps whose checkpoints are never deleted; None for none.
        best_metric, best_mode: name in `save(metrics=...)` and `"max"` or `"min"`.
        read_only: nothing is created, repaired or deleted.

    Raises:
        DiskError: `directory` cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        *,
        temporary_every_s: float = 300.0,
        permanent_every_steps: int | None = None,
        best_metric: str | None = None,
        best_mode: str = "max",
        read_only: bool = False,
    ) -> None:
        if best_mode not in ("max", "min"):
            raise ValueError(f"best_mode must be 'max' or 'min'. Got {best_mode!r}.")
        if permanent_every_steps is not None and permanent_every_steps < 1:
            raise ValueError(f"permanent_every_steps must be >= 1. Got {permanent_every_steps}.")
        self._directory = Path(directory).absolute()
        self._temporary_every_s = temporary_every_s
        self._permanent_every_steps = permanent_every_steps
        self._best = (best_metric, best_mode)
        self._read_only = read_only
        self._several = jax.process_count() > 1
        self._writes = not read_only and jax.process_index() == 0
        if self._writes:
            disk.probe(self._directory)
            step_folder.repair(self._directory)
        self._manifests, self._broken = step_folder.scan(self._directory)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._failure: CheckpointError | None = None
        self._last_step: int | None = None
        self._next_time = time.monotonic() + temporary_every_s

    # What is there ---------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """Complete checkpoints, ascending."""
        return sorted(self._manifests)

    def latest_step(self) -> int | None:
        """The checkpoint written last (not the highest step, after a return to an earlier one)."""
        order = self._newest_first()
        return order[0] if order else None

    def best_step(self) -> int | None:
        """The best by the metric of this object, or by the newest checkpoint's where it has none.

        The first of equals; NaN is never best; None where no checkpoint carries the metric.
        """
        metric, mode = self._best
        if metric is None and self._manifests:
            newest = self._manifests[self._newest_first()[0]]
            metric, mode = newest.best_metric, newest.best_mode
        return step_folder.best(self._manifests, metric, mode)

    def _newest_first(self) -> list[int]:
        return step_folder.newest_first(self._manifests)

    # Saving ----------------------------------------------------------------------------------

    def check_space(self, state: PyTree) -> None:
        """Raise `DiskError` now if three checkpoints of `state` do not fit on the disk."""
        size = tree_paths.nbytes(tree_paths.flat(state))
        if self._writes:
            disk.require_free(self._directory, 3 * size, "to keep three checkpoints")

    def due(self, step: int) -> bool:
        """Whether a save at `step` is due, by step or by time. Cheap: ask every step."""
        if step == self._last_step:
            return False
        if self._permanent(step):
            return True
        if self._several:
            if step % _AGREE_STEPS:
                return False
            late = np.int32(time.monotonic() >= self._next_time)
            return bool(multihost_utils.broadcast_one_to_all(late))
        busy = self._pending is not None and not self._pending.done()
        return not busy and time.monotonic() >= self._next_time

    def save(
        self,
        step: int,
        state: PyTree,
        extra: dict[str, Any],
        *,
        metrics: dict[str, float] | None = None,
        force: bool = False,
    ) -> bool:
        """Copy `state` to the host and write it in the background, if due, best or forced.

        `state` may be donated right after. A save of a step that exists replaces it. An earlier
        save still running is waited for; where it failed, that was logged.

        Args:
            extra: JSON values (iterator state, offsets, clocks), returned by `restore` as given.
            metrics: values at this step; makes it the best where `best_metric` improves.

        Returns:
            Whether a save was started.
        """
        metrics = {name: float(value) for name, value in (metrics or {}).items()}
        if not (force or self.due(step) or self._improves(metrics)):
            return False
        if self._read_only:
            raise CheckpointError(f"{self._directory} was opened read-only.")
        self._join()
        leaves = tree_paths.flat(state)
        manifest = Manifest(
            step=int(step),
            sequence=1 + max((m.sequence for m in self._manifests.values()), default=0),
            permanent=self._permanent(step),
            best_metric=self._best[0],
            best_mode=self._best[1],
            metrics=metrics,
            extra=json.loads(json.dumps(extra)),
            tree=tree_paths.rows(leaves),
        )
        self._last_step = step  # before the start: a save that fails at once sets both back
        self._next_time = time.monotonic() + self._temporary_every_s
        self._start(manifest, leaves)
        return True

    def _start(self, manifest: Manifest, leaves: dict[tree_paths.Path, Any]) -> None:
        """Hand the arrays to the background thread; several processes start Orbax together."""
        if not self._several:
            host = placement.to_host(leaves)
            self._pending = self._worker.submit(self._write, manifest, host)
            return
        temporary = self._temporary(manifest.step)
        if self._writes:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        multihost_utils.sync_global_devices(f"checkpoint-{manifest.sequence}-{manifest.step}")
        with _context():
            response = ocp.save_async(temporary / step_folder.STATE, _saved(leaves))
        self._pending = self._worker.submit(self._finish, manifest, response)

    def _write(self, manifest: Manifest, leaves: dict[tree_paths.Path, Any]) -> None:
        """Background: arrays, manifest, rename, then the deletion of what is no longer kept."""
        temporary = self._temporary(manifest.step)
        try:
            size = tree_paths.nbytes(leaves)
            disk.require_free(self._directory, size, f"the checkpoint of step {manifest.step}")
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            with _context():
                ocp.save(temporary / step_folder.STATE, _saved(leaves))
            self._commit(manifest)
        except Exception as error:
            self._failed(manifest.step, error)

    def _finish(self, manifest: Manifest, response: Any) -> None:
        try:
            response.result()
            self._commit(manifest)
        except Exception as error:
            self._failed(manifest.step, error)

    def _commit(self, manifest: Manifest) -> None:
        if self._writes:
            temporary = self._temporary(manifest.step)
            manifest = step_folder.commit(temporary, self._folder(manifest.step), manifest)
        self._manifests[manifest.step] = manifest
        self._broken.pop(manifest.step, None)
        self._failure = None
        keep = {self.latest_step(), self.best_step()}
        for step, other in list(self._manifests.items()):
            if step not in keep and not other.permanent:
                del self._manifests[step]
                if self._writes:
                    step_folder.remove(self._folder(step))
        if self._writes:
            step_folder.forget_corrupt(self._directory)

    def _failed(self, step: int, error: Exception) -> None:
        if self._writes:
            shutil.rmtree(self._temporary(step), ignore_errors=True)
        latest = self.latest_step()
        intact = "there is no earlier one" if latest is None else f"step {latest} is intact"
        self._failure = CheckpointError(
            f"The checkpoint of step {step} could not be written to {self._directory}: {error}\n"
            f"({intact}; {self._free()})"
        )
        self._failure.__cause__ = error
        _log.error("%s\nTraining goes on; the save is tried again.", self._failure)
        self._next_time = min(self._next_time, time.monotonic() + _RETRY_S)
        self._last_step = None

    def _free(self) -> str:
        try:
            return f"{disk.mib(disk.free_bytes(self._directory))} free"
        except OSError as error:
            return str(error)

    def _permanent(self, step: int) -> bool:
        every = self._permanent_every_steps
        return every is not None and step > 0 and step % every == 0

    def _improves(self, metrics: dict[str, float]) -> bool:
        metric, mode = self._best
        if metric not in metrics or math.isnan(metrics[metric]):
            return False
        self._join()
        best = self.best_step()
        return best is None or step_folder.better(
            metrics[metric], self._manifests[best].metrics[metric], mode
        )

    def _join(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def wait(self) -> None:
        """Wait for the save in progress.

        Raises:
            CheckpointError: the last save failed; the checkpoint before it is intact.
        """
        self._join()
        if self._several:
            multihost_utils.sync_global_devices("checkpoint-wait")
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """`wait`, then end the background thread."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:  # the exception on its way matters more; a failed save was logged
            self._join()
            self._worker.shutdown()

    # Restoring -------------------------------------------------------------------------------

    def restore(
        self, template: PyTree, *, step: int | str = "latest"
    ) -> tuple[int, PyTree, dict[str, Any]]:
        """`(step, state, extra)`, the state placed as `template` is.

        Args:
            template: arrays or `jax.ShapeDtypeStruct`s; their shardings are used, whatever devices
                the checkpoint was written from. NumPy leaves come back as NumPy.
            step: `"latest"` falls back to the last good checkpoint and says so; `"best"` and a
                number do not.

        Raises:
            CheckpointError: none there, or the one asked for is damaged.
            CheckpointMismatchError: its tree, shapes or dtypes are not those of `template`.
        """
        asked = tree_paths.flat(template)
        chosen, manifest = self._choose(step)
        source = f"Checkpoint {self._folder(chosen)}"
        tree_paths.require_same(manifest.shapes, asked, source)
        values = self._load(manifest)
        placed = placement.place([values[path] for path in asked], list(asked.values()))
        self._last_step = chosen
        state = jax.tree.unflatten(jax.tree.structure(template), placed)
        return chosen, state, json.loads(json.dumps(manifest.extra))

    def read(self, step: int | str = "latest") -> tuple[int, dict[str, Any], dict[str, Any]]:
        """`(step, nested dict of NumPy arrays, extra)`; needs no template. Errors as `restore`."""
        chosen, manifest = self._choose(step)
        return chosen, tree_paths.nested(self._load(manifest)), manifest.extra

    def _choose(self, step: int | str) -> tuple[int, Manifest]:
        """The checkpoint to read, its files verified; every process gets the same answer."""
        self._join()
        if self._read_only:  # a run may be writing here meanwhile
            self._manifests, self._broken = step_folder.scan(self._directory)
        if self._several:
            chosen = self._verified(step) if jax.process_index() == 0 else 0
            step = int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))
            self._manifests, self._broken = step_folder.scan(self._directory)
            return step, self._manifests[step]
        chosen = self._verified(step)
        return chosen, self._manifests[chosen]

    def _verified(self, step: int | str) -> int:
        if step == "latest":
            return self._latest_good()
        number = self.best_step() if step == "best" else step
        if number is None:
            raise CheckpointError(
                f"{self._directory}: no checkpoint carries the metric that names the best. "
                "Ask for step='latest'."
            )
        if not isinstance(number, int):
            raise ValueError(f"step must be 'latest', 'best' or a number. Got {step!r}.")
        if number in self._broken:
            raise CheckpointError(f"Checkpoint {number} is damaged: {self._broken[number]}")
        if number not in self._manifests:
            raise CheckpointError(
                f"{self._directory} has no complete checkpoint of step {number}. "
                f"Complete: {self.steps() or 'none'}."
            )
        if problem := self._damage(number):
            raise CheckpointError(f"Checkpoint {self._folder(number)} is damaged: {problem}.")
        return number

    def _latest_good(self) -> int:
        for step in self._newest_first():
            problem = self._damage(step)
            if problem is None:
                self._report_broken(used=step)
                return step
            self._broken[step] = problem
        self._report_broken(used=None)
        reasons = "".join(f"\n  step {step}: {why}" for step, why in self._broken.items())
        raise CheckpointError(f"{self._directory} has no usable checkpoint.{reasons}")

    def _report_broken(self, used: int | None) -> None:
        for step, why in sorted(self._broken.items()):
            fallback = "" if used is None else f"; step {used} is used instead"
            _log.warning("Checkpoint of step %s is damaged: %s%s", step, why, fallback)
            self._manifests.pop(step, None)
            if self._writes and used is not None:
                step_folder.put_aside(self._folder(step))
        if used is not None:
            self._broken.clear()

    def _damage(self, step: int) -> str | None:
        return disk.damage(self._folder(step), self._manifests[step].files)

    def _load(self, manifest: Manifest) -> dict[tree_paths.Path, np.ndarray]:
        """Every leaf as a NumPy array, by path."""
        abstract = {
            path: np.broadcast_to(np.zeros((), jax.numpy.dtype(dtype)), shape)
            for path, (shape, dtype) in manifest.shapes.items()
        }
        with _context():
            tree = ocp.load(self._folder(manifest.step) / step_folder.STATE, _saved(abstract))
        loaded = tree_paths.flat(tree)
        return {path: loaded.get(path, empty) for path, empty in abstract.items()}

    def _folder(self, step: int) -> Path:
        return self._directory / str(step)

    def _temporary(self, step: int) -> Path:
        return self._directory / f"{step}.tmp"


def _context() -> ocp.Context:
    context = ocp.Context()
    context.array.saving.use_compression = False  # weights do not compress; zstd costs CPU time
    return context


def _saved(leaves: dict[tree_paths.Path, Any]) -> dict[str, Any]:
    """The tree Orbax sees: empty arrays, which it refuses, live in the manifest alone."""
    full = {path: leaf for path, leaf in leaves.items() if math.prod(tree_paths.kind(leaf)[0])}
    return tree_paths.nested(full)
