# SPDX-License-Identifier: Apache-2.0
"""Quantisation: weights as integers of 1 to 8 bits, inputs of layers as int8."""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers import layers
from efficient_layers.compress.apply import with_changes
from efficient_layers.compress.calibrate import CLIPS, Clip, Range, call_order, input_ranges
from efficient_layers.compress.edits import module_at, replace, values_of
from efficient_layers.compress.finalize import sizes_of, to_integers
from efficient_layers.compress.gptq import Order
from efficient_layers.compress.low_rank_layers import factorised
from efficient_layers.compress.rounding import Inputs, Rounding
from efficient_layers.compress.technique import Change, Context, Skip, Technique
from efficient_layers.layers.low_rank_conv import LowRankConv
from efficient_layers.layers.quant_spec import Activations, Granularity, Method
from efficient_layers.models.paths import modules
from efficient_layers.ops.quantize import code_range

# A subclass may do more with its kernel than multiply by it (StandardizedConv): these types alone.
_CONVS = (nnx.Conv, layers.Conv, layers.DepthwiseConv)


@dataclasses.dataclass(frozen=True)
class Quantize(Technique):
    """w -> scale (code - zero point), for linear layers, convolutions and embeddings.

    `mode="ptq"` stores integers at once (`IntLinear`, `IntConv`, `IntEmbedding`). `mode="qat"`
    keeps floats that are rounded at every call (`QuantLinear`, ...), to be trained; `finalize` then
    stores the integers. Norms, softmax and biases stay in floating point, and so do the first and
    the last layer that the model calls, unless `keep_ends` says otherwise.

    With `activations="static"`, PTQ takes the ranges of inputs from `data`; QAT does so where
    `data` is given, else they are collected in training. Fold BatchNorms first (`FoldBatchNorm`).

    Attributes:
      bits: of a weight, 2 to 8; 1 for method "binary". Embeddings: 4 or 8.
      activations: of inputs: None, floating point (weight-only); "dynamic", int8 with a scale a row
        or an example at each call; "static", int8 with one scale.
      method: "affine", to nearest; "gptq" and "adaround", the same grid with codes chosen for the
        inputs that the layer gets on `data`; "lsq" (learned steps, QAT); "binary"; "ternary".
      granularity, group_size, symmetric, noise: as in `el.layers.QuantSpec`.
      symmetric_activations: None: a zero point for static inputs, none for dynamic ones.
      clip: how calibration takes a range, see `calibrate.input_ranges`.
      percentile: for clip "percentile".
      order, damping: of `gptq.gptq`.
      iterations: of `adaround.adaround`.
      bias_correction: E[x W] - E[x W_q] over `data` is added to the bias; a layer without one gets
        one (`bias_correction.bias_correction`).
      sequential: layer after layer, in the order of calls, sees inputs that quantised layers made;
        else all see those of the float model. A program is compiled for every layer.
      keep_ends: first and last layer stay float. None: where the glob has a wildcard; a layer named
        by its own path is quantised.

    Reference: Jacob et al., *Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference* (arXiv 1712.05877); Krishnamoorthi, *Quantizing deep
    convolutional networks for efficient inference* (arXiv 1806.08342).

    Raises:
      ValueError: a setting out of range, or two that exclude each other; weights or calibration
        values that are not finite.
    """

    bits: int = 8
    activations: Activations | None = None
    method: Method | Literal["gptq", "adaround"] = "affine"
    mode: Literal["ptq", "qat"] = "ptq"
    granularity: Granularity = "channel"
    group_size: int | None = None
    symmetric: bool = True
    symmetric_activations: bool | None = None
    noise: float = 1.0
    clip: Clip = "minmax"
    percentile: float = 99.99
    order: Order = "index"
    damping: float = 0.01
    iterations: int = 1000
    bias_correction: bool = False
    sequential: bool = False
    keep_ends: bool | None = None

    def __post_init__(self) -> None:
        for name, known in (("mode", ("ptq", "qat")), ("clip", CLIPS)):
            if getattr(self, name) not in known:
                got = getattr(self, name)
                raise ValueError(f"Quantize expects {name} to be one of {known}. Got {got!r}.")
        if self.mode == "ptq" and (self.method == "lsq" or self.noise < 1):
            raise ValueError(
                'Quantize with mode="ptq" expects a method that needs no training. Got '
                f'method="{self.method}", noise={self.noise}: use mode="qat".'
            )
        chooses = self._rounding.needs_data
        if self.mode == "qat" and chooses:
            raise ValueError(
                'Quantize with mode="qat" trains the weights and chooses no codes before. Got '
                f'method="{self.method}", bias_correction={self.bias_correction}: use mode="ptq".'
            )
        if self.sequential and not chooses:
            raise ValueError(
                'Quantize expects sequential=True with method "gptq" or "adaround", or with '
                f'bias_correction. Got method="{self.method}".'
            )
        if not 50 < self.percentile < 100:
            raise ValueError(f"Quantize expects a percentile in (50, 100). Got {self.percentile}.")
        _ = self.spec

    @property
    def spec(self) -> layers.QuantSpec:
        """The settings of the layers."""
        symmetric = self.symmetric_activations
        if symmetric is None:
            symmetric = self.activations != "static" or self.method == "lsq"
        return layers.QuantSpec(
            bits=self.bits,
            granularity=self.granularity,
            group_size=self.group_size,
            symmetric=self.symmetric,
            activations=self.activations,
            symmetric_activations=symmetric,
            method="affine" if self.method == "gptq" or self.method == "adaround" else self.method,
            noise=self.noise,
        )

    @property
    def _rounding(self) -> Rounding:
        return Rounding(
            choice=self.method if self.method == "gptq" or self.method == "adaround" else "nearest",
            order=self.order,
            damping=self.damping,
            iterations=self.iterations,
            correct_bias=self.bias_correction,
        )

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Data for static PTQ and chosen codes, an example for the order of calls."""
        static = self.activations == "static" and self.mode == "ptq"
        data = {"data"} if static or self._rounding.needs_data else set()
        return frozenset(data | ({"example"} if self._keeps_ends or self.sequential else set()))

    @property
    def _keeps_ends(self) -> bool:
        wild = re.search(r"[*?]", self.path) is not None
        return wild if self.keep_ends is None else self.keep_ends

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        context, parents = _factorised(_with_parts(context))
        ends = _ends(context) if self._keeps_ends else {}
        chosen: dict[str, Any] = {}
        for path, module in context.matched:
            if not _quantisable(module):
                continue
            if reason := ends.get(path) or _refused(path, module):
                yield Skip(path, reason)
                continue
            fake = self._fake(path, module)
            if isinstance(fake, Skip):
                yield fake
            else:
                chosen[path] = fake
        ranges = self._ranges(context, chosen)
        answers: list[Change | Skip] = []
        for paths in self._turns(context, list(chosen)):
            seen = self._seen(context, answers, {path: chosen[path] for path in paths})
            answers += [self._change(path, chosen[path], ranges, seen.get(path)) for path in paths]
        yield from _under_parents(answers, parents)

    def _fake(self, path: str, module: Any) -> Any:
        """`module` with float weights that are rounded at every call."""
        weight = module.embedding[...] if isinstance(module, nnx.Embed) else module.kernel[...]
        if not np.isfinite(np.asarray(weight, np.float32)).all():
            raise ValueError(f"{self} expects finite weights. Got NaN or inf in {path}.")
        try:
            if isinstance(module, nnx.Embed):
                spec = dataclasses.replace(self.spec, activations=None, symmetric_activations=True)
                return layers.QuantEmbedding.from_embedding(module, spec=spec)
            if isinstance(module, nnx.Linear):
                return layers.QuantLinear.from_linear(module, spec=self.spec)
            return layers.QuantConv.from_conv(module, spec=self.spec)
        except ValueError as error:  # what this layer cannot do with these settings
            return Skip(path, str(error))

    def _ranges(self, context: Context, chosen: dict[str, Any]) -> dict[str, Range] | None:
        """None where nothing is calibrated."""
        if self.activations != "static" or context.data is None:
            return None
        paths = [p for p, fake in chosen.items() if not isinstance(fake, layers.QuantEmbedding)]
        return input_ranges(
            context.model,
            paths,
            context.data,
            loss=context.loss,
            clip=self.clip,
            percentile=self.percentile,
            symmetric=self.spec.symmetric_activations,
        )

    def _turns(self, context: Context, paths: list[str]) -> list[list[str]]:
        """Which layers are quantised together, one turn after another."""
        if not self.sequential:
            return [paths]
        order = call_order(context.model, paths, context.example)
        rest = [path for path in paths if path not in order]
        return [*([path] for path in order), *([rest] if rest else [])]

    def _seen(
        self, context: Context, done: list[Change | Skip], fakes: dict[str, Any]
    ) -> dict[str, Inputs]:
        """Of the inputs of `fakes`, what their codes are chosen by, with `done` carried out."""
        rounding = self._rounding
        paths = [path for path, fake in fakes.items() if not rounding.refused(fake)]
        if not paths or not rounding.needs_data:
            return {}
        changes = [answer for answer in done if isinstance(answer, Change)]
        model = with_changes(context.model, changes) if changes else context.model
        return rounding.inputs(model, paths, context.data, context.loss)

    def _change(
        self, path: str, fake: Any, ranges: dict[str, Range] | None, inputs: Inputs | None
    ) -> Change | Skip:
        why = f"{self.bits} bits"
        embedding = isinstance(fake, layers.QuantEmbedding)
        if ranges is not None and not embedding:
            seen = ranges.get(path)
            if seen is None or seen.low == seen.high == 0:
                return Skip(path, "not called on data" if seen is None else "its input is 0")
            _set_range(fake, seen)
            why += f", inputs from {seen.low:.4g} to {seen.high:.4g}"
        elif self.activations is not None and not embedding:
            why += f", {self.activations} int8 inputs"
        if self.mode == "ptq":
            rounded = self._rounding(fake, inputs)
            _shift_bias(fake, rounded.shift)
            return to_integers(path, fake, why + rounded.why, rounded.weight)
        edit = replace(path, type(fake).__name__, **sizes_of(fake), spec=fake.spec)
        return Change(path, f"{why}, float masters to train", (edit,), values_of(path, fake))


def _with_parts(context: Context) -> Context:
    """The context in which the parts of each matched low-rank layer match, too."""
    matched = dict(context.matched)
    for path, layer in context.matched:
        if isinstance(layer, layers.FactorizedLinear | LowRankConv):
            names = getattr(layer, "parts", ("reduce", "expand"))
            matched |= {f"{path}/{name}": getattr(layer, name) for name in names}
    return context._replace(matched=tuple(matched.items()))


def _factorised(context: Context) -> tuple[Context, dict[str, Change]]:
    """The context with each matched `LowRankLinear` as two linear layers, which match, too.

    And, by the paths of the two, the change that makes them of the one.
    """
    parents: dict[str, Change] = {}
    for path, layer in context.matched:
        if isinstance(layer, layers.LowRankLinear) and path:
            change = factorised(path, layer)
            parents |= {f"{path}/reduce": change, f"{path}/expand": change}
    if not parents:
        return context, {}
    model = with_changes(context.model, {c.path: c for c in parents.values()}.values())
    model.eval()
    rest = [path for path, m in context.matched if not isinstance(m, layers.LowRankLinear)]
    matched = tuple((path, module_at(model, path)) for path in [*rest, *parents])
    return context._replace(model=model, matched=matched), parents


def _under_parents(
    answers: list[Change | Skip], parents: dict[str, Change]
) -> Iterator[Change | Skip]:
    """`answers`, those on the two halves of a factorised layer as one change of that layer."""
    halves: dict[str, list[Change]] = {}
    for answer in answers:
        if answer.path not in parents:
            yield answer
        elif isinstance(answer, Change):
            halves.setdefault(parents[answer.path].path, []).append(answer)
    for change in {c.path: c for c in parents.values()}.values():
        if parts := halves.get(change.path):
            edits = sum((part.edits for part in parts), change.edits)
            gone = tuple(f"{part.path}/" for part in parts)
            values = {k: v for k, v in change.values.items() if not k.startswith(gone)}
            for part in parts:
                values |= part.values
            why = "; ".join(f"{part.path.rpartition('/')[2]}: {part.why}" for part in parts)
            yield Change(change.path, why, edits, values)
        else:
            yield Skip(change.path, "neither factor is quantised")


def _quantisable(module: nnx.Module) -> bool:
    return type(module) in _CONVS or isinstance(module, nnx.Linear | nnx.Embed)


def _refused(path: str, module: Any) -> str:
    if not path:
        return "the model itself: put it in a Sequential"
    if isinstance(module, nnx.Linear) and module.kernel.ndim != 2:
        return f"stacked: {module.kernel.shape}"
    return ""


def _ends(context: Context) -> dict[str, str]:
    """Path of the first and the last layer called -> why it stays float."""
    known = [path for path, module in modules(context.model) if _quantisable(module)]
    order = call_order(context.model, known, context.example)
    if not order:
        return {}
    remedy = "stays float (keep_ends=False changes that)"
    return {order[-1]: f"the last layer {remedy}", order[0]: f"the first layer {remedy}"}


def _shift_bias(fake: Any, shift: Any) -> None:
    """Adds `shift`, if any, to the bias; a layer without one gets one."""
    if shift is None:
        return
    old = 0 if fake.bias is None else np.asarray(fake.bias[...], np.float64)
    fake.bias = nnx.Param(jnp.asarray(old + shift, fake.param_dtype))
    fake.use_bias = True


def _set_range(fake: Any, seen: Range) -> None:
    """The static range of a layer's input, or the first value of its learned step."""
    if fake.input_step is None:
        fake.input_low.set_value(jnp.float32(seen.low))
        fake.input_high.set_value(jnp.float32(seen.high))
    else:
        top = code_range(8)[1]
        step = jnp.asarray(2 * seen.magnitude / top**0.5, fake.input_step[...].dtype)
        fake.input_step.set_value(step)
