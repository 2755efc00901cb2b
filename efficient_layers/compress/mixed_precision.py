# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: more bits for the layers that rounding harms most, under a budget of bytes."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers import layers
from efficient_layers.compress.apply import with_changes
from efficient_layers.compress.assignment import Choice, assign
from efficient_layers.compress.edits import module_at
from efficient_layers.compress.hooks import hooked
from efficient_layers.compress.log import Size
from efficient_layers.compress.quantize import Quantize
from efficient_layers.compress.technique import Change, Context, Skip, Technique
from efficient_layers.layers.int_weight import IntWeight
from efficient_layers.measure.view import call, view
from efficient_layers.models.paths import at

Criterion = Literal["error", "loss"]


@dataclasses.dataclass(frozen=True)
class MixedPrecision(Technique):
    """`Quantize` with the bits of each layer chosen so that the model fits into `bytes`.

    A layer's sensitivity to b bits is the harm done when its weights alone are rounded to b bits:
    "error", the squared change of the model's output over its square, or "loss", the increase of
    the mean `loss(model, batch)`; both over `data`. Beginning at the most bits, the change to fewer
    bits with the least harm for a byte saved is made until the budget holds
    (`compress/assignment.py`). Layers and what stays float are `Quantize`'s, and so are the
    answers; two bit-widths that take the same bytes as stored are one choice, the better of them.

    Attributes:
      bits: what a layer may have.
      bytes: of the whole model as stored; below 1, a share of what it has before.
      criterion: of a layer's sensitivity.
      like: a `Quantize` whose other settings all layers get; its path and bits do not count.

    Reference: Dong et al., *HAWQ: Hessian AWare Quantization of Neural Networks with
    Mixed-Precision* (arXiv 1905.03696), section 3.2, where the largest eigenvalue of the Hessian
    orders the layers and a person picks the bits; Nahshan et al., *Loss Aware Post-training
    Quantization* (arXiv 1911.07190), for harm measured by the loss itself. Differs from both: harm
    is measured by one forward pass a layer and bit-width, taken to add up over layers, and spent
    against bytes. Rounding of activations is not part of it.

    Raises:
      ValueError: a setting out of range; a budget below the least that can be reached, which is
        stated; an output or a loss that is not finite.
    """

    bits: tuple[int, ...] = (2, 4, 8)
    bytes: float = 0.25
    criterion: Criterion = "error"
    like: Quantize | None = None

    def __post_init__(self) -> None:
        if isinstance(self.bits, int) or len(set(self.bits)) < 2:
            raise ValueError(f"MixedPrecision expects 2 bit-widths or more. Got {self.bits!r}.")
        if self.bytes <= 0:
            raise ValueError(f"MixedPrecision expects bytes above 0. Got {self.bytes}.")
        if self.criterion not in get_args(Criterion):
            raise ValueError(
                f"MixedPrecision expects a criterion of {get_args(Criterion)}. "
                f"Got {self.criterion!r}."
            )
        if self.like is not None and self.like.mode != "ptq":
            raise ValueError(
                'MixedPrecision expects like= with mode="ptq". To train at the chosen bits, give '
                'each group of layers a Quantize(mode="qat") of its own.'
            )
        _ = [self.at(bits) for bits in self.bits]

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Data, the loss where it is the criterion, and what `Quantize` needs."""
        loss = {"loss"} if self.criterion == "loss" else set()
        return frozenset({"data"} | loss) | self.at(max(self.bits)).needs

    def at(self, bits: int) -> Quantize:
        """The step that gives all layers these bits."""
        like = self.like or Quantize(self.path)
        return dataclasses.replace(like, path=self.path, type=self.type, bits=bits)

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        skipped: dict[str, Skip] = {}
        changes: dict[str, dict[int, Change]] = {}
        for bits in sorted(set(self.bits)):
            for answer in self.at(bits).plan(context):
                if isinstance(answer, Change):
                    changes.setdefault(answer.path, {})[bits] = answer
                else:
                    skipped[answer.path] = answer
        yield from (skip for path, skip in skipped.items() if path not in changes)
        if not changes:
            return
        choices = self._choices(context, changes)
        for path, bits in self._assigned(context, choices).items():
            harms = ", ".join(f"{b}: {c.harm:.2g}" for b, c in sorted(choices[path].items()))
            change = changes[path][bits]
            yield dataclasses.replace(change, why=f"{change.why} ({self.criterion} at {harms})")

    def _choices(
        self, context: Context, changes: Mapping[str, Mapping[int, Change]]
    ) -> dict[str, dict[int, Choice]]:
        harm = _Harm(context, self.criterion)
        choices: dict[str, dict[int, Choice]] = {path: {} for path in changes}
        for bits in sorted(set(self.bits)):
            made = [change[bits] for change in changes.values() if bits in change]
            rounded = with_changes(context.model, made)
            for change in made:
                layer = module_at(rounded, change.path)
                values = float_values(module_at(context.model, change.path), layer)
                found = harm.of({f"{change.path}/{name}": v for name, v in values.items()})
                if not np.isfinite(found):
                    raise ValueError(f"{self} expects finite outputs. Got {found}: {change.path}.")
                choices[change.path][bits] = Choice(Size.of(layer).bytes, found)
        return choices

    def _assigned(self, context: Context, choices: dict[str, dict[int, Choice]]) -> dict[str, int]:
        whole = Size.of(context.model).bytes
        rest = whole - sum(Size.of(module_at(context.model, path)).bytes for path in choices)
        budget = self.bytes * whole if self.bytes < 1 else self.bytes
        try:
            return assign(choices, budget - rest)
        except ValueError as error:
            least = rest + sum(min(c.bytes for c in layer.values()) for layer in choices.values())
            raise ValueError(
                f"{self} cannot reach {budget:,.0f} of {whole:,} bytes: the fewest bits of every "
                f"layer make {least:,}, of which {rest:,} are in what is not quantised."
            ) from error


class _Harm:
    """What rounding some weights of a model does, by one program for all of them."""

    def __init__(self, context: Context, criterion: Criterion) -> None:
        self._model = view(context.model)
        self._batches = list(context.data)
        if not self._batches:
            raise ValueError("MixedPrecision expects at least one batch in data. Got none.")
        loss = context.loss
        graphdef, self._state = nnx.split(self._model)

        @jax.jit
        def output(state: Any, batch: Any) -> list[jax.Array]:
            model = nnx.merge(graphdef, state, copy=True)
            return _floats(call(model, batch) if loss is None else _output(model, batch, loss))

        @jax.jit
        def change(state: Any, batch: Any, before: list[jax.Array]) -> jax.Array:
            pairs = zip(output(state, batch), before, strict=True)
            return jnp.stack([sum(jnp.square(y - b).sum() for y, b in pairs), _squares(before)])

        @jax.jit
        def mean_loss(state: Any, batch: Any) -> jax.Array:
            assert loss is not None
            return jnp.mean(loss(nnx.merge(graphdef, state, copy=True), batch))

        if criterion == "loss":
            self._measure = partial(self._loss, mean_loss)
            self._before = self._loss(mean_loss)
        else:
            self._outputs = [output(self._state, batch) for batch in self._batches]
            self._measure = partial(self._error, change)
            self._before = 0.0

    def of(self, values: Mapping[str, jax.Array]) -> float:
        """With these arrays at these paths of Variables."""
        before = {path: at(self._model, path).get_value() for path in values}
        self._set(values)
        harm = self._measure() - self._before
        self._set(before)
        return harm

    def _set(self, values: Mapping[str, jax.Array]) -> None:
        for path, value in values.items():
            variable = at(self._model, path)
            variable.set_value(jnp.asarray(value, variable.dtype).reshape(variable.shape))
        self._state = nnx.split(self._model)[1]

    def _loss(self, mean_loss: Callable) -> float:
        return float(np.mean([float(mean_loss(self._state, b)) for b in self._batches]))

    def _error(self, change: Callable) -> float:
        pairs = zip(self._batches, self._outputs, strict=True)
        sums = [np.asarray(change(self._state, b, out), np.float64) for b, out in pairs]
        off, whole = np.sum(sums, axis=0)
        return float(off / max(whole, np.finfo(np.float64).tiny))


def float_values(old: Any, new: Any) -> dict[str, jax.Array]:
    """The weights of `old` as `new`, the same layer quantised, has them."""
    if isinstance(old, layers.LowRankLinear):
        return {"u": _kernel(new.reduce), "v": _kernel(new.expand)}
    if isinstance(new, layers.IntEmbedding):
        return {"embedding": new(jnp.arange(new.num_embeddings))}
    return {"kernel": _kernel(new)}


def _kernel(layer: Any) -> jax.Array:
    return layer.dequantised() if isinstance(layer, IntWeight) else layer.kernel[...]


def _output(model: nnx.Module, batch: Any, loss: Callable) -> Any:
    """What `model` returns where `loss` calls it."""
    seen: list[Any] = []

    def hook(call: Callable, *args: Any, **kwargs: Any) -> Any:
        seen.append(call(*args, **kwargs))
        return seen[-1]

    loss(hooked(model, {"": hook}), batch)
    return seen


def _floats(tree: Any) -> list[jax.Array]:
    return [
        leaf.astype(jnp.float32)
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]


def _squares(arrays: list[jax.Array]) -> jax.Array:
    return sum((jnp.square(a).sum() for a in arrays), jnp.float32(0))
