# SPDX-License-Identifier: Apache-2.0
"""What a model costs before any hardware is named: parameters, MACs, activations, weight bytes.

Counted over the jaxpr of the *reference* lowering (a fast form of a depthwise convolution has no
convolution in it to count), one row a layer, without running and without needing weights.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import jax
from flax import nnx

from efficient_layers.measure.jaxpr import DATA, Operation, Walker, weight
from efficient_layers.measure.table import table
from efficient_layers.measure.tensors import ROOT, Tensor, tensors_of
from efficient_layers.measure.view import Pure, pure, view
from efficient_layers.ops import lowering

NO_LAYER = "(no layer)"


@dataclass(frozen=True)
class LayerCost:
    """One row: a module that owns weights, or a named scope with products of data alone.

    `name` is the module's path (`blocks/0/conv`; `(root)` for weights of the model itself). `kind`
    is "conv", "depthwise conv", "grouped conv", "linear" or "matmul" where something is counted,
    else the module's class. `shape` is that of the largest stored tensor, in a row without one that
    of the result. `note` says where the count is no plain fact (a while loop, a conditional).
    """

    name: str
    kind: str
    params: int
    macs: int
    activations: int
    weight_bytes: int
    shape: tuple[int, ...]
    note: str = ""

    @property
    def flops(self) -> int:
        """Floating-point operations: 2 x MACs."""
        return 2 * self.macs


@dataclass(frozen=True)
class Cost:
    """Totals over `layers`, for one example (batch 1). The rows sum to them.

    - `params`: trainable parameters; BatchNorm's scale and bias are in, its running statistics are
    not.
    - `macs`: multiply-accumulates of convolutions, linear layers and attention's matmuls. FLOPs = 2
    x MACs.
    - `activations`: elements that these operations put out (timm's `macts`).
    - `weight_bytes`: bytes of the stored tensors, running statistics, masks and scales included,
    int4 packed
      two a byte.
    """

    params: int
    macs: int
    activations: int
    weight_bytes: int
    layers: tuple[LayerCost, ...]

    @property
    def flops(self) -> int:
        """Floating-point operations of one example's forward pass: 2 x MACs."""
        return 2 * self.macs

    def to_json(self) -> dict[str, Any]:
        """The `cost` entry of report.json."""
        rows = [{**asdict(row), "shape": list(row.shape)} for row in self.layers]
        totals = {name: getattr(self, name) for name in _COUNTS}
        return {**totals, "layers": rows}

    def __str__(self) -> str:
        return table(self)


_COUNTS = ("params", "macs", "activations", "weight_bytes")


def cost(model: nnx.Module | Callable, x: Any, *, batch_axis: int | None = 0) -> Cost:
    """Counts `model` on `x`, in eval mode, in the reference lowering; `model` is left as it is.

    Args:
      model: an nnx module, with weights or abstract (`nnx.eval_shape`), or a function of arrays.
      x: its input, arrays or `jax.ShapeDtypeStruct`; a tuple means `model(*x)`, a dict
      `model(**x)`.
      batch_axis: the axis of every array in `x` that is the batch. It is traced with size 1, so the
      counts
        are an example's whatever batch is handed in. None counts `x` as it is.

    Raises:
      ValueError: the arrays of `x` have no common size along `batch_axis`.
    """
    function = pure(model, x)
    arrays = _one_example(function.arrays, batch_axis)
    tensors = tensors_of(function.state)
    walker = _walk(function, arrays, tensors)

    rows: dict[str, tuple[list[Operation], list[Tensor]]] = {}
    for event in walker.events:  # in program order: rows stand as the model runs
        if isinstance(event, Operation):
            rows.setdefault(_owner(event, tensors), ([], []))[0].append(event)
        else:
            rows.setdefault(tensors[event].row, ([], []))
    for tensor in tensors:
        rows.setdefault(tensor.row, ([], []))[1].append(tensor)
    classes = _classes(model)
    layers = tuple(_row(name, *row, classes) for name, row in rows.items())
    kept = tuple(row for row in layers if row.params or row.weight_bytes or row.macs or row.note)
    params, macs, activations, weight_bytes = (
        sum(getattr(row, c) for row in kept) for c in _COUNTS
    )
    return Cost(params, macs, activations, weight_bytes, kept)


def _one_example(arrays: list, batch_axis: int | None) -> list[jax.ShapeDtypeStruct]:
    """Shapes of `arrays` with a batch of 1."""
    shapes = [(tuple(a.shape), a.dtype) for a in arrays]
    if batch_axis is None:
        return [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    sizes = {shape[batch_axis] for shape, _ in shapes if len(shape) > batch_axis}
    if len(sizes) > 1:
        raise ValueError(
            f"cost expects arrays with one batch size along axis {batch_axis}. Got shapes "
            f"{[shape for shape, _ in shapes]}. Pass batch_axis=None to count x as it is."
        )
    return [jax.ShapeDtypeStruct(_with_one(shape, batch_axis), dtype) for shape, dtype in shapes]


def _with_one(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :]) if len(shape) > axis else shape


def _walk(function: Pure, arrays: list, tensors: list[Tensor]) -> Walker:
    """Traces and walks. Weights carry their index; random state and the input do not."""
    with lowering("reference"):
        try:
            jaxpr = jax.make_jaxpr(function.apply)(function.state, arrays)
        except (TypeError, ValueError) as error:
            error.add_note(
                f"cost traced the model on {[a.shape for a in arrays]}: x with a batch of 1. "
                "Pass batch_axis=None to count x as it is."
            )
            raise
    flows = [DATA if t.passing else weight(i) for i, t in enumerate(tensors)]
    walker = Walker()
    walker.run(jaxpr, [*flows, *[DATA] * len(arrays)])
    return walker


def _classes(model: nnx.Module | Callable) -> dict[str, str]:
    """Class name of every module, by path."""
    if not isinstance(model, nnx.Module):
        return {}
    modules = nnx.iter_modules(view(model))
    return {"/".join(map(str, path)) or ROOT: type(module).__name__ for path, module in modules}


def _owner(op: Operation, tensors: list[Tensor]) -> str:
    """The row an operation belongs to: the module of the largest weight in it, else its scope."""
    if not op.origins:
        return op.scope or NO_LAYER
    largest = max(sorted(op.origins), key=lambda i: prod(tensors[i].shape))
    return tensors[largest].row


def _row(name: str, ops: list[Operation], tensors: list[Tensor], kinds: dict) -> LayerCost:
    shapes = [t.shape for t in tensors if not t.passing] or [op.shape for op in ops]
    counted = max(ops, key=lambda op: op.macs, default=None)
    return LayerCost(
        name=name,
        kind=counted.kind if counted else kinds.get(name, "parameters"),
        params=sum(t.params for t in tensors),
        macs=sum(op.macs for op in ops),
        activations=sum(op.activations for op in ops),
        weight_bytes=sum(t.weight_bytes for t in tensors),
        shape=max(shapes, key=prod, default=()),
        note="; ".join(dict.fromkeys(op.note for op in ops if op.note)),
    )
