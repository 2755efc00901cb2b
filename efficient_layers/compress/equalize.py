# SPDX-License-Identifier: Apache-2.0
"""Cross-layer equalisation: weights of neighbouring layers brought to like ranges."""

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from efficient_layers.compress.feeders import LAYERS, Output, feeders
from efficient_layers.compress.rescaling import Rescaling, gathered, refused
from efficient_layers.compress.technique import Change, Context, Skip, Technique


@dataclasses.dataclass(frozen=True)
class Equalize(Technique):
    """W1 / s, b1 / s, s W2 with s_i = sqrt(r1_i / r2_i): the function stays, ranges become alike.

    r1_i is the largest |w| of output channel i of a layer, r2_i that of input channel i of the
    layers it feeds; afterwards both are sqrt(r1_i r2_i). Made for `Quantize` with one scale for a
    tensor, where a channel of small weights would get few codes; with a scale a channel it balances
    the activations and the rows of W2.

    A layer takes part where its output goes, through nothing but functions with f(s x) = s f(x)
    (ReLU, leaky ReLU, pooling, dropout in eval mode), into matched layers. `path` matches
    convolutions, depthwise ones and linear layers. Who feeds whom is found by tracing `example`.
    Chains are swept until no factor is off by more than `tolerance`. A channel that is 0 on either
    side is left alone.

    Attributes:
      tolerance: of a sweep's factors from 1.
      sweeps: the most there are.

    Reference: Nagel, van Baalen, Blankevoort and Welling, *Data-Free Quantization Through Weight
    Equalization and Bias Correction* (arXiv 1906.04721), section 4.1. Differs from the
    paper: a layer may feed several others; ReLU6 is left alone where the paper makes it a ReLU;
    high biases are not absorbed into the next layer.

    Raises:
      ValueError: a setting out of range; weights that are not finite.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"example"})

    path: str = "**"
    tolerance: float = 1e-4
    sweeps: int = 100

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.sweeps < 1:
            raise ValueError(
                "Equalize expects a tolerance above 0 and at least 1 sweep. "
                f"Got tolerance={self.tolerance}, sweeps={self.sweeps}."
            )

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        rescaling = Rescaling(context.model)
        outputs = feeders(context.model, context.example)
        layers = {path for path, module in context.matched if type(module) in LAYERS}
        pairs: dict[str, Output] = {}
        reasons: dict[str, str] = {}
        for path in outputs:
            if path in layers:
                reasons[path] = refused(outputs[path], path, rescaling.modules, layers)
                if not reasons[path]:
                    pairs[path] = outputs[path]
        before = {path: _spread(rescaling, path) for path in pairs}
        self._sweep(rescaling, pairs)
        for path, output in pairs.items():
            after = _spread(rescaling, path)
            fed = ", ".join(way.consumer for way in output.ways)
            why = f"outputs balanced with {fed}: ranges {before[path]:.3g}x apart"
            rescaling.note(path, f"{why}, now {after:.3g}x")
            for way in output.ways:
                rescaling.note(way.consumer, f"inputs balanced with {path}")
        changes = list(rescaling.changes())
        yield from changes
        done = {change.path for change in changes}
        for path in sorted(layers - done):
            yield Skip(path, reasons.get(path, "it is not called on the example"))

    def _sweep(self, rescaling: Rescaling, pairs: dict[str, Output]) -> None:
        for _ in range(self.sweeps):
            off = 0.0
            for path, output in pairs.items():
                first = rescaling.output_maxima(path)
                inputs = {way.consumer: rescaling.input_maxima(way.consumer) for way in output.ways}
                factors = _factors(first, gathered(output.ways, inputs, len(first)))
                factors[~output.free] = 1
                rescaling.move(path, output, factors)
                off = max(off, float(np.abs(np.log(factors)).max(initial=0)))
            if off <= self.tolerance:
                return


def _factors(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    both = (first > 0) & (second > 0)
    return np.sqrt(np.divide(first, second, out=np.ones_like(first), where=both))


def _spread(rescaling: Rescaling, path: str) -> float:
    """The largest over the least range of a layer's output channels that are not 0."""
    maxima = rescaling.output_maxima(path)
    maxima = maxima[maxima > 0]
    return float(maxima.max() / maxima.min()) if maxima.size else 1.0
