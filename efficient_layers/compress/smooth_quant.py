# SPDX-License-Identifier: Apache-2.0
"""SmoothQuant: outliers of activations moved into the weights before int8 activations."""

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from efficient_layers.compress.feeders import feeders
from efficient_layers.compress.rescaling import (
    Rescaling,
    consumer_refused,
    gathered,
    groups,
    input_statistics,
)
from efficient_layers.compress.technique import Change, Context, Skip, Technique


@dataclasses.dataclass(frozen=True)
class SmoothQuant(Technique):
    """X / s and s W with s_j = max|X_j|^alpha / max|W_j|^(1 - alpha): the function stays.

    A few channels of a transformer's activations are tens of times larger than the others, and one
    int8 step for a row or a tensor rounds the others away. Their size moves into the weights, whose
    output channels have steps of their own. 1 / s is folded into the scale and the bias of the
    normalisation, or of the layer, whose output X is; s into the rows of every layer that reads X:
    query, key and value together. Then `Quantize(activations="dynamic" | "static")`.

    `path` matches the layers that read X: linear layers, convolutions, `nnx.LinearGeneral`. Who
    feeds them is found by tracing `example`: a LayerNorm, RMSNorm or GroupNorm with a scale, a
    linear layer or a convolution, through nothing but functions with f(s x) = s f(x). max|X_j| is
    over `data`.

    Attributes:
      alpha: how much of the difficulty moves, in [0, 1].

    Reference: Xiao et al., *SmoothQuant: Accurate and Efficient Post-Training Quantization for
    Large Language Models* (arXiv 2211.10438), section 4, equation 4. Differs from the paper: a
    channel that is 0 on either side is left alone.

    Raises:
      ValueError: alpha out of range; weights or activations that are not finite.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"example", "data"})

    path: str = "**"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"SmoothQuant expects an alpha in [0, 1]. Got {self.alpha}.")

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        rescaling = Rescaling(context.model)
        readers = [p for p, m in context.matched if p and not consumer_refused(m)]
        outputs = feeders(context.model, context.example)
        found, reasons = groups(outputs, rescaling.modules, readers)
        fed = [way.consumer for output in found.values() for way in output.ways]
        largest = input_statistics(context, fed, _largest, np.maximum)
        for path, output in found.items():
            consumers = [way.consumer for way in output.ways]
            if unseen := [consumer for consumer in consumers if consumer not in largest]:
                reasons |= dict.fromkeys(consumers, f"{unseen[0]} is not called on data")
                continue
            channels = rescaling.channels(path)
            activations = gathered(output.ways, largest, channels)
            rows = {consumer: rescaling.input_maxima(consumer) for consumer in consumers}
            factors = self._factors(activations, gathered(output.ways, rows, channels))
            factors[~output.free] = 1
            rescaling.move(path, output, factors)
            after = (activations / factors).max()
            rescaling.note(path, f"outputs of at most {activations.max():.4g}, now {after:.4g}")
            for consumer in consumers:
                rescaling.note(consumer, f"inputs smoothed by {path}")
        yield from rescaling.changes()
        for path, reason in reasons.items():
            yield Skip(path, reason)

    def _factors(self, activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
        both = (activations > 0) & (weights > 0)
        factors = np.ones_like(activations)
        factors[both] = activations[both] ** self.alpha / weights[both] ** (1 - self.alpha)
        return factors


def _largest(x: jax.Array) -> jax.Array:
    return jnp.abs(x.reshape(-1, x.shape[-1]).astype(jnp.float32)).max(0)
