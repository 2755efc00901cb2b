# SPDX-License-Identifier: Apache-2.0
"""Factors that move from a layer's outputs into the layers it feeds: the function stays.

y = f(x W + b) with f(s x) = s f(x): channels of W and b divided by s > 0, the rows of whatever
reads y multiplied by s. Numbers are float64 until they go back into the model.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx

from efficient_layers import layers
from efficient_layers.compress.feeders import LAYERS, Output, Way
from efficient_layers.compress.observe import Statistic, observe
from efficient_layers.compress.technique import Change, Context
from efficient_layers.models.paths import modules

# A subclass may do something else with its scale (1 + scale): these types alone.
NORMS = (
    *(nnx.LayerNorm, nnx.RMSNorm, nnx.GroupNorm),
    *(layers.LayerNorm, layers.RMSNorm, layers.GroupNorm),
)


class Rescaling:
    """Arrays of the modules of `model`, changed by factors, and what was done to each module."""

    def __init__(self, model: nnx.Module) -> None:
        self.modules: dict[str, Any] = dict(modules(model))
        self._arrays: dict[str, np.ndarray] = {}
        self._done: dict[str, list[str]] = {}
        self.input_factors: dict[str, np.ndarray] = {}  # those that are in the rows by now

    def array(self, path: str, name: str) -> np.ndarray:
        """As it is now. Raises ValueError where it is not finite."""
        where = f"{path}/{name}"
        if where not in self._arrays:
            found = np.asarray(getattr(self.modules[path], name)[...], np.float64)
            if not np.isfinite(found).all():
                raise ValueError(f"Rescaling expects finite weights. Got NaN or inf in {where}.")
            self._arrays[where] = found
        return self._arrays[where]

    def output_maxima(self, path: str) -> np.ndarray:
        """max |w| of each output channel."""
        kernel = np.abs(self.array(path, "kernel"))
        return kernel.reshape(-1, kernel.shape[-1]).max(0)

    def input_maxima(self, path: str) -> np.ndarray:
        """max |w| of each input channel."""
        return np.abs(self._rows(path)).max((0, 3)).ravel()

    def channels(self, path: str) -> int:
        """How many the module has at its output."""
        name = "scale" if type(self.modules[path]) in NORMS else "kernel"
        return self.array(path, name).shape[-1]

    def move(self, path: str, output: Output, factors: np.ndarray) -> None:
        """`factors` of its free channels out of the layer at `path` into all that it feeds."""
        factors = np.where(output.free, factors, 1)
        self.divide_outputs(path, factors)
        for way in output.ways:
            self.multiply_inputs(way.consumer, way.at(factors, 1))

    def divide_outputs(self, path: str, factors: np.ndarray) -> None:
        for name in ("kernel", "scale", "bias"):
            if getattr(self.modules[path], name, None) is not None:
                self._arrays[f"{path}/{name}"] = self.array(path, name) / factors

    def multiply_inputs(self, path: str, factors: np.ndarray) -> None:
        kernel, rows = self.array(path, "kernel"), self._rows(path)
        groups = rows.shape[1]
        scaled = rows * factors.reshape(groups, -1, 1)
        self.input_factors[path] = self.input_factors.get(path, 1) * factors
        self._arrays[f"{path}/kernel"] = scaled.transpose(0, 2, 1, 3).reshape(kernel.shape)

    def note(self, path: str, done: str) -> None:
        """For the log: what was done to the module at `path`."""
        self._done.setdefault(path, []).append(done)

    def changes(self) -> Iterator[Change]:
        """One for each module that has a note."""
        for path, done in self._done.items():
            names = ("kernel", "scale", "bias")
            values = {p: self._arrays[p] for n in names if (p := f"{path}/{n}") in self._arrays}
            yield Change(path, "; ".join(dict.fromkeys(done)), (), values)

    def _rows(self, path: str) -> np.ndarray:
        """The kernel as (space, groups, inputs of a group, outputs of a group)."""
        module, kernel = self.modules[path], self.array(path, "kernel")
        if not isinstance(module, nnx.Conv):
            return kernel.reshape(1, 1, kernel.shape[0], -1)
        groups = module.feature_group_count
        return kernel.reshape(-1, kernel.shape[-2], groups, kernel.shape[-1] // groups).transpose(
            0, 2, 1, 3
        )


def gathered(ways: Iterable[Way], values: Mapping[str, np.ndarray], channels: int) -> np.ndarray:
    """The largest of the values that consumers have for each of a layer's channels."""
    found = np.zeros(channels)
    for way in ways:
        there = way.channels >= 0
        np.maximum.at(found, way.channels[there], values[way.consumer][there])
    return found


def producer_refused(module: Any) -> str:
    """Why factors cannot be taken out of the module's outputs, or ""."""
    name = type(module).__name__
    if type(module) in NORMS:
        if module.scale is None:
            return f"a {name} without a scale to fold into"
        axes = getattr(module, "feature_axes", -1)
        return "" if axes in (-1, (-1,), [-1]) else f"a {name} with a scale along axes {axes}"
    if isinstance(module, nnx.BatchNorm):
        return "a BatchNorm: fold it first (FoldBatchNorm)"
    return _kernel_refused(module) if type(module) in LAYERS else f"a {name}"


def consumer_refused(module: Any) -> str:
    """Why factors cannot be put into the rows of the module's kernel, or ""."""
    name = type(module).__name__
    if isinstance(module, nnx.BatchNorm):
        return "a BatchNorm: fold it first (FoldBatchNorm)"
    if type(module) is nnx.LinearGeneral:
        plain = len(module.in_features) == 1 and not module.batch_axis and module.axis == (-1,)
        return "" if plain else "a LinearGeneral over several axes"
    return _kernel_refused(module) if type(module) in LAYERS else f"a {name}"


def refused(
    output: Output, producer: str, known: Mapping[str, Any], matched: Collection[str]
) -> str:
    """Why a layer's factors cannot move into all that it feeds, or ""."""
    if reason := producer_refused(known[producer]):
        return reason
    for way in output.ways:
        if reason := consumer_refused(known[way.consumer]):
            return f"it feeds {way.consumer}, {reason}"
    if not any(way.at(output.free, False).any() for way in output.ways):
        return output.elsewhere or "nothing reads it"
    left = [way.consumer for way in output.ways if way.consumer not in matched]
    if left:
        return f"it feeds {', '.join(left)}, too, which the step does not match"
    return ""


def groups(
    outputs: Mapping[str, Output], known: Mapping[str, Any], matched: Collection[str]
) -> tuple[dict[str, Output], dict[str, str]]:
    """Layers and norms whose factors can move into matched layers; why the other matched ones not.

    A feature that two could scale (relu(x V) * x W) belongs to the first; norms go first.
    """
    found: dict[str, Output] = {}
    taken: dict[str, np.ndarray] = {}
    reasons: dict[str, str] = {}
    for path in sorted(outputs, key=lambda path: type(known[path]) not in NORMS):  # stable
        output = outputs[path]
        reason = refused(output, path, known, matched)
        scaled = [(way.consumer, way.at(output.free, False)) for way in output.ways]
        if any(
            (taken[consumer] & features).any() for consumer, features in scaled if consumer in taken
        ):
            continue
        if not reason:
            found[path] = output
            for consumer, features in scaled:
                taken[consumer] = taken.get(consumer, False) | features
        for consumer, _ in scaled:
            reasons.setdefault(consumer, f"fed by {path}: {reason}")
    nobody = "no one layer or norm feeds it through scale-free functions alone"
    left = sorted(set(matched) - taken.keys())
    return found, {path: reasons.get(path, nobody) for path in left}


def input_statistics(
    context: Context, paths: Iterable[str], statistic: Statistic, join: np.ufunc
) -> dict[str, np.ndarray]:
    """`statistic` of the inputs of the layers at `paths`, `join`ed over all calls on data.

    Raises:
      ValueError: no data; a statistic that is not finite.
    """
    found: dict[str, np.ndarray] = {}

    def record(path: str, value: np.ndarray) -> None:
        found[path] = join(found[path], value) if path in found else value

    statistics = dict.fromkeys(paths, statistic)
    if statistics and not observe(
        context.model, statistics, context.data, record, loss=context.loss
    ):
        raise ValueError("Statistics of inputs expect at least one batch in data. Got none.")
    for path, value in found.items():
        if not np.isfinite(value).all():
            raise ValueError(f"Activations are expected to be finite. Got NaN or inf into {path}.")
    return found


def _kernel_refused(module: Any) -> str:
    axes = len(module.kernel_size) if isinstance(module, nnx.Conv) else 0
    if module.kernel.ndim != axes + 2:
        return f"a stacked {type(module).__name__}: {tuple(module.kernel.shape)}"
    return "a convolution with a mask" if getattr(module, "mask", None) is not None else ""
