# SPDX-License-Identifier: Apache-2.0
"""Weights of torch models into ours and back: layouts, and one error that lists what does not fit.

A family says which of its modules is which of theirs (`Pair`); what a tensor of a convolution, a
linear layer, a norm or an embedding is called and how its axes lie, is written here once.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.models.paths import at


class WeightsError(ValueError):
    """Weights that do not fit the model: all missing, unexpected and mis-shaped entries."""


class Layout(NamedTuple):
    """How the axes of one weight differ: functions of arrays, each the inverse of the other."""

    to_torch: Callable[[np.ndarray], np.ndarray]
    from_torch: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda w: w, lambda w: w)
LINEAR = Layout(lambda w: w.T, lambda w: w.T)  # (in, out) <-> (out, in)
# (*window, in, out) <-> (out, in, *window)
CONV = Layout(
    lambda w: np.moveaxis(w, (-1, -2), (0, 1)), lambda w: np.moveaxis(w, (0, 1), (-1, -2))
)
# A linear layer of ours that is a 1x1 convolution of theirs: (in, out) <-> (out, in, 1, 1)
POINTWISE = Layout(lambda w: w.T[:, :, None, None], lambda w: w[:, :, 0, 0].T)


def flattened(h: int, w: int, c: int) -> Layout:
    """A linear layer on a flattened image: ours reads (h w c), theirs (c h w)."""
    return Layout(
        lambda k: np.moveaxis(k.reshape(h, w, c, -1), (3, 2), (0, 1)).reshape(-1, h * w * c),
        lambda k: np.moveaxis(k.reshape(-1, c, h, w), (0, 1), (3, 2)).reshape(h * w * c, -1),
    )


class Pair(NamedTuple):
    """A module (or a Variable) of ours and the name of theirs, with the same numbers.

    Attributes:
      ours: a path such as "blocks/0/expand/conv"; several where theirs is fused (query, key, value
        in one `qkv`): joined along our last axis, in this order.
      theirs: a module's prefix ("features.1.conv.0.0"), or a tensor's name where ours is a Variable
        ("cls_token"); several where ours is fused, of equal width: shares of our last axis.
      layout: of the weight, where it is not the usual one of the module's type.
    """

    ours: str | tuple[str, ...]
    theirs: str | tuple[str, ...]
    layout: Layout | None = None


@dataclasses.dataclass(frozen=True)
class TorchNames:
    """The names of one source.

    Attributes:
      pairs: model (with its `.config`) -> its pairs.
      head: pattern of their names whose shapes follow the number of classes.
      ignored: pattern of names that a state dict may hold besides: constant buffers, tied copies.
      older: (pattern, replacement) of spellings that older files have.
    """

    pairs: Callable[[Any], Iterable[Pair]]
    head: str = r"(classifier|head|fc)\..*"
    ignored: str = r"(?!)"
    older: tuple[tuple[str, str], ...] = ()


class Tensor(NamedTuple):
    """A tensor of theirs: the variables of ours that hold it, side by side on the last axis.

    `share` (i, k): it is the i-th of k equal parts of the last axis.
    """

    variables: tuple[nnx.Variable, ...]
    paths: tuple[str, ...]
    layout: Layout
    share: tuple[int, int] = (0, 1)

    def part(self, joined: np.ndarray) -> np.ndarray:
        """What of our joined array is theirs, in our layout."""
        if self.share == (0, 1):
            return joined
        index, count = self.share
        return np.split(joined, count, axis=-1)[index]


COUNTER = "num_batches_tracked"
_NORM = {"scale": "weight", "bias": "bias"}
_BATCH_NORM = {**_NORM, "mean": "running_mean", "var": "running_var"}


def load_state_dict(
    model: nnx.Module, names: TorchNames, state_dict: Mapping[str, Any], *, any_head: bool = False
) -> list[str]:
    """Fills `model` in place; nothing is changed where anything does not fit.

    Args:
      state_dict: name -> torch tensor, NumPy or JAX array.
      any_head: tensors of the head may be absent, of another shape, or left over: what of the model
        has no match keeps its values.

    Returns:
      Lines on what was not loaded, empty where all was.

    Raises:
      WeightsError: entries are missing, unexpected or mis-shaped.
    """
    tensors = dict(tensors_of(model, names))
    for old, new in names.older:
        state_dict = {re.sub(old, new, name): value for name, value in state_dict.items()}
    lines = _differences(tensors, names, state_dict)
    skipped = [n for n in lines if any_head and re.fullmatch(names.head, n)]
    wrong = [line for name, line in lines.items() if name not in skipped]
    if wrong:
        raise WeightsError(
            f"These weights do not fit {type(model).__name__}: {len(wrong)} of {len(tensors)} "
            "entries differ.\n  " + "\n  ".join(wrong)
        )
    for name, tensor in tensors.items():
        if name not in lines:
            _set(tensor, as_array(state_dict[name]))
    return [lines[name] for name in skipped]


def _differences(
    tensors: Mapping[str, "Tensor"], names: TorchNames, state_dict: Mapping[str, Any]
) -> dict[str, str]:
    """Name of theirs -> a line on what is wrong with it."""
    lines = {}
    for name, tensor in tensors.items():
        expected, where = _torch_shape(tensor), " + ".join(tensor.paths)
        if name not in state_dict:
            lines[name] = f"{name}: missing; {where} expects shape {expected}"
        elif tuple(state_dict[name].shape) != expected:
            got = tuple(state_dict[name].shape)
            lines[name] = f"{name}: shape {got}; {where} expects {expected}"
    for name, value in state_dict.items():
        known = name in tensors or re.fullmatch(rf"{names.ignored}|(.*\.)?{COUNTER}", name)
        if not known:
            lines[name] = f"{name}: unexpected, of shape {tuple(value.shape)}"
    return lines


def state_dict_of(model: nnx.Module, names: TorchNames) -> dict[str, np.ndarray]:
    """The model's arrays under their names, in their layout; counters of batches as 0."""
    result: dict[str, np.ndarray] = {}
    for name, tensor in tensors_of(model, names):
        ours = [np.asarray(variable[...]) for variable in tensor.variables]
        joined = np.concatenate(ours, axis=-1) if ours[0].ndim else np.array(ours[0])
        result[name] = np.ascontiguousarray(tensor.layout.to_torch(tensor.part(joined)))
        if name.endswith("running_var"):
            result[name.removesuffix("running_var") + COUNTER] = np.zeros((), np.int64)
    return result


def tensors_of(model: nnx.Module, names: TorchNames) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of theirs: name, and where it lies in `model`.

    Raises:
      WeightsError: a pair names a module whose type has no layout (one put in by `swap`, say).
    """
    for pair in names.pairs(model):
        paths = (pair.ours,) if isinstance(pair.ours, str) else pair.ours
        prefixes = (pair.theirs,) if isinstance(pair.theirs, str) else pair.theirs
        shares = [(prefix, (i, len(prefixes))) for i, prefix in enumerate(prefixes)]
        found = [at(model, path) for path in paths]
        if isinstance(found[0], nnx.Variable):
            for prefix, share in shares:
                yield prefix, Tensor(tuple(found), paths, pair.layout or SAME, share)
            continue
        for ours, theirs, layout in _leaves(found[0], paths[0]):
            variables = tuple(getattr(module, ours) for module in found)
            if variables[0] is not None:
                chosen = pair.layout if pair.layout and theirs == "weight" else layout
                inner = tuple(f"{path}/{ours}" for path in paths)
                for prefix, share in shares:
                    yield f"{prefix}.{theirs}", Tensor(variables, inner, chosen, share)


def as_array(value: Any) -> np.ndarray:
    """A torch tensor, NumPy or JAX array as NumPy; bfloat16 of torch as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return np.array(value.numpy())
    return np.asarray(value)


def _leaves(module: Any, path: str) -> list[tuple[str, str, Layout]]:
    """(our attribute, their tensor, layout of its axes) of a module."""
    if isinstance(module, nnx.Conv):
        return [("kernel", "weight", CONV), ("bias", "bias", SAME)]
    if isinstance(module, nnx.Linear):
        return [("kernel", "weight", LINEAR), ("bias", "bias", SAME)]
    if isinstance(module, nnx.Embed):
        return [("embedding", "weight", SAME)]
    if hasattr(module, "scale"):
        named = _BATCH_NORM if isinstance(module, nnx.BatchNorm) else _NORM
        return [(ours, theirs, SAME) for ours, theirs in named.items() if hasattr(module, ours)]
    raise WeightsError(
        f"Module {path!r} is a {type(module).__name__}: it has no counterpart in torch weights."
    )


def _torch_shape(tensor: Tensor) -> tuple[int, ...]:
    shapes = [variable[...].shape for variable in tensor.variables]
    joined = (*shapes[0][:-1], sum(shape[-1] for shape in shapes)) if shapes[0] else ()
    return tensor.layout.to_torch(tensor.part(np.broadcast_to(np.float32(0), joined))).shape


def _set(tensor: Tensor, value: np.ndarray) -> None:
    value, start = tensor.layout.from_torch(value), 0
    if tensor.share != (0, 1):
        (variable,) = tensor.variables
        joined = np.array(variable[...])
        tensor.part(joined)[...] = value  # a view
        variable.set_value(jnp.asarray(joined))
        return
    for variable in tensor.variables:
        old = variable[...]
        width = old.shape[-1] if old.ndim else 1
        part = value[..., start : start + width] if old.ndim else value
        variable.set_value(jnp.asarray(part, old.dtype))
        start += width
