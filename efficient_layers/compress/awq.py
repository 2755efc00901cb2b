# SPDX-License-Identifier: Apache-2.0
"""AWQ: weights of salient channels enlarged before they are rounded to few bits."""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.compress.feeders import Output, feeders
from efficient_layers.compress.moments import input_moments
from efficient_layers.compress.rescaling import (
    Rescaling,
    consumer_refused,
    groups,
    input_statistics,
)
from efficient_layers.compress.technique import Change, Context, Skip, Technique
from efficient_layers.layers import QuantSpec


@dataclasses.dataclass(frozen=True)
class AWQ(Technique):
    """X / s and s W with s = mean|X|^a, a such that ||X W - (X / s) Q(s W)||^2 is least.

    Weights that meet large activations are enlarged before rounding Q, so that their relative error
    falls; a, from 0 to 1, is that of `grid` values with the least error of the outputs of all
    layers that read X, from X^T X over `data`. The function stays, up to rounding; then
    `Quantize(bits=bits, granularity="group", group_size=group_size)` does the rounding, with these
    same settings. For weight-only codes.

    `path` matches linear layers. Who feeds them is found by tracing `example`: a LayerNorm, RMSNorm
    or GroupNorm with a scale, a linear layer or a convolution, through nothing but functions with
    f(s x) = s f(x). 1 / s is folded into their scale or kernel, and bias.

    Attributes:
      bits, symmetric: of the codes, as `Quantize` will have them.
      group_size: inputs with one scale; None: one scale an output channel.
      grid: values of a that are tried.

    Reference: Lin et al., *AWQ: Activation-aware Weight Quantization for LLM Compression and
    Acceleration* (arXiv 2306.00978), section 3.2, equations 4 and 5. Differs from the paper's code:
    the error is that of the layers' own outputs, not of the attention block's; no search for a
    range that clips; values and attention's output are not a pair.

    Raises:
      ValueError: a setting out of range; weights or activations that are not finite.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"example", "data"})

    path: str = "**"
    bits: int = 4
    group_size: int | None = 32
    symmetric: bool = True
    grid: int = 20

    def __post_init__(self) -> None:
        if self.grid < 2 or not isinstance(self.grid, int):
            raise ValueError(f"AWQ expects a grid of at least 2 values. Got {self.grid!r}.")
        _ = self.spec

    @property
    def spec(self) -> QuantSpec:
        """The codes that are to come."""
        granularity: Any = "channel" if self.group_size is None else "group"
        return QuantSpec(
            bits=self.bits,
            granularity=granularity,
            group_size=self.group_size,
            symmetric=self.symmetric,
        )

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        rescaling = Rescaling(context.model)
        linears = {p: m for p, m in context.matched if p and type(m) is nnx.Linear}
        misfits = {p: reason for p, m in linears.items() if (reason := self._misfit(m))}
        outputs = feeders(context.model, context.example)
        found, reasons = groups(outputs, rescaling.modules, linears.keys() - misfits.keys())
        reasons |= misfits
        fed = [way.consumer for output in found.values() for way in output.ways]
        means = input_statistics(context, fed, _magnitude, np.add)
        moments = input_moments(context.model, fed, context.data, context.loss) if fed else {}
        for path, output in found.items():
            consumers = [way.consumer for way in output.ways]
            if unseen := [consumer for consumer in consumers if consumer not in moments]:
                reasons |= dict.fromkeys(consumers, f"{unseen[0]} is not called on data")
                continue
            powers, candidates = self._candidates(output, means, rescaling.channels(path))
            errors = self._errors(rescaling, output, candidates, moments)
            best = int(errors.argmin())
            if best == 0:
                reasons |= dict.fromkeys(consumers, "no power of mean|X| above 0 lowers the error")
                continue
            rescaling.move(path, output, candidates[best])
            rescaling.note(path, f"outputs over mean|X|^{powers[best]:.2f}")
            share = errors[best] / errors[0]
            for consumer in consumers:
                why = f"rows times mean|X|^{powers[best]:.2f} from {path}"
                rescaling.note(consumer, f"{why}: {share:.3g} of the error at {self.bits} bits")
        yield from rescaling.changes()
        for path, reason in reasons.items():
            yield Skip(path, reason)

    def _candidates(
        self, output: Output, means: Mapping[str, np.ndarray], channels: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The powers a, and s for each; their largest times their least is 1, as in AWQ's code."""
        sums, counts = np.zeros(channels), np.zeros(channels)
        for way in output.ways:
            there, seen = way.channels >= 0, means[way.consumer]  # sums, number of rows
            np.add.at(sums, way.channels[there], seen[:-1][there] / seen[-1])
            np.add.at(counts, way.channels[there], 1)
        moved = output.free & (counts > 0)
        mean = sums[moved] / counts[moved]
        mean = np.maximum(mean, _LEAST * mean.max()) if mean.max() > 0 else np.ones_like(mean)
        powers, factors = np.linspace(0, 1, self.grid), np.ones((self.grid, channels))
        chosen = mean ** powers[:, None]
        factors[:, moved] = chosen / np.sqrt(chosen.max(1) * chosen.min(1))[:, None]
        return powers, factors

    def _errors(
        self,
        rescaling: Rescaling,
        output: Output,
        candidates: np.ndarray,
        moments: Mapping[str, Any],
    ) -> np.ndarray:
        total = np.zeros(len(candidates))
        for way in output.ways:
            count, gram = moments[way.consumer]
            before = rescaling.input_factors.get(way.consumer, np.ones(len(gram)))
            gram = gram / np.outer(before, before)
            kernel = jnp.asarray(rescaling.array(way.consumer, "kernel"), jnp.float32)
            factors = jnp.asarray(way.at(candidates, 1), jnp.float32)
            gram = jnp.asarray(gram / max(count, 1), jnp.float32)
            total += np.asarray(output_errors(kernel, gram, factors, self.spec), np.float64)
        return total

    def _misfit(self, linear: nnx.Linear) -> str:
        if self.group_size and linear.in_features % self.group_size:
            return f"group_size={self.group_size} does not divide its {linear.in_features} inputs"
        return consumer_refused(linear)


@partial(jax.jit, static_argnames="spec")  # one program for all layers of a shape
def output_errors(
    kernel: jax.Array, gram: jax.Array, candidates: jax.Array, spec: QuantSpec
) -> jax.Array:
    """||X W - (X / s) Q(s W)||^2 / n for each s of `candidates`, from X^T X / n = `gram`."""
    parts = spec.scale_shape(kernel.shape, channel=1, inputs=0)

    def error(factors: jax.Array) -> jax.Array:
        factors = factors[:, None]
        off = spec.fake(kernel * factors, parts, step=None) / factors - kernel
        return jnp.vdot(off, jnp.matmul(gram, off, precision="highest"), precision="highest")

    return jax.lax.map(error, candidates)


_LEAST = 1e-4  # of the largest mean|X|: what a channel that hardly occurs counts as


def _magnitude(x: jax.Array) -> jax.Array:
    """Sums of |x| over rows, and how many rows there are."""
    rows = jnp.abs(x.reshape(-1, x.shape[-1]).astype(jnp.float32))
    return jnp.append(rows.sum(0), jnp.float32(len(rows)))
