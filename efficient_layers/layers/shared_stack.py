# SPDX-License-Identifier: Apache-2.0
"""A deep stack of few layers: the same weights are applied many times."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx import List
from jax import lax
from jaxtyping import Array, Float

Pattern = Literal["consecutive", "cycle", "sandwich"]


class SharedStack(nnx.Module):
    """`depth` applications of `groups` distinct layers; x keeps its shape throughout.

    `make_layer(rngs)` makes a layer. In which order the layers a b c are applied at depth 6:
    "consecutive" aabbcc (ALBERT's groups), "cycle" abcabc, "sandwich" abbbbc (three groups: only
    the middle is shared). `groups=1` is a Universal Transformer without its halting. There is one
    set of Variables a distinct layer, in `layers`; its gradient is the sum over its applications.

    Repetitions are a `lax.scan`, so that compile time grows with `groups`, not with `depth`. A
    layer whose call takes `rngs` gets another key each time. Running statistics are refused:
    different depths have different ones. Use LayerNorm, RMSNorm or GroupNorm inside.

    It saves memory, files and traffic of weights, and no MACs. For layers of one kernel (others
    alike, with their own cost in the place of kernel.size):

    params = groups * layers[0].kernel.size
    MACs = depth * positions * layers[0].kernel.size

    Reference: Lan et al., *ALBERT* (arXiv 1909.11942), section 3.1; Dehghani et al., *Universal
    Transformers* (arXiv 1807.03819), section 2; Reid et al., *Subformer* (arXiv 2101.00234;
    the sandwich).

    >>> from functools import partial
    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> make = lambda rngs: nnx.Linear(8, 8, rngs=rngs)
    >>> el.layers.SharedStack(make, 12, groups=2, rngs=nnx.Rngs(0))(jnp.ones((2, 8))).shape
    (2, 8)

    Raises:
      ValueError: groups that do not divide depth (sandwich: groups other than 3, depth below 3);
        layers with running statistics, that change the shape, or that write state when called.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        make_layer: Callable[[nnx.Rngs], nnx.Module],
        depth: int,
        *,
        groups: int = 1,
        pattern: Pattern = "consecutive",
        rngs: nnx.Rngs,
    ):
        self.runs = _runs(depth, groups, pattern)
        self.layers = List([make_layer(rngs) for _ in range(groups)])
        self.depth = depth
        self.groups = groups
        self.pattern = pattern
        if jax.tree.leaves(nnx.state(self.layers, nnx.BatchStat)):
            raise ValueError(
                f"SharedStack expects layers without running statistics. Got {_name(self.layers)} "
                "with nnx.BatchStat, which every depth would overwrite: use LayerNorm, RMSNorm or "
                "GroupNorm."
            )

    def __call__(
        self,
        x: Float[Array, "*b d"],
        *,
        rngs: nnx.Rngs | jax.Array | None = None,
        **inputs: Any,
    ) -> Float[Array, "*b d"]:
        """x of the layers' own shape; `rngs` (a key, or its stream "dropout") where they draw.

        `inputs`, such as a mask of attention, go to every layer as they are.
        """
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"SharedStack expects a floating-point input. Got {x.dtype}.")
        with jax.named_scope("SharedStack"):
            for members, repeats in self.runs:
                x = _repeat([self.layers[i] for i in members], repeats, x, rngs, inputs)
        return x


def _runs(depth: int, groups: int, pattern: Pattern) -> tuple[tuple[tuple[int, ...], int], ...]:
    """(layers in order, how often) for each run of the stack."""
    if pattern == "sandwich":
        if groups != 3 or depth < 3:
            raise ValueError(
                f"SharedStack with pattern 'sandwich' expects 3 groups and depth of at least 3. "
                f"Got {groups=} and {depth=}."
            )
        return (((0,), 1), ((1,), depth - 2), ((2,), 1))
    if pattern not in ("consecutive", "cycle"):
        raise ValueError(
            f"SharedStack expects pattern 'consecutive', 'cycle' or 'sandwich'. Got {pattern!r}."
        )
    if groups < 1 or depth < 1 or depth % groups:
        raise ValueError(f"SharedStack expects groups that divide depth. Got {groups=}, {depth=}.")
    if pattern == "cycle":
        return ((tuple(range(groups)), depth // groups),)
    return tuple(((i,), depth // groups) for i in range(groups))


def _repeat(
    layers: list[Any], repeats: int, x: jax.Array, rngs: Any, inputs: dict[str, Any]
) -> jax.Array:
    """The layers one after the other, `repeats` times."""
    graphdef, state = nnx.split(List(layers))
    draws = rngs is not None and any(_takes_rngs(layer) for layer in layers)

    def body(x, key):
        fresh = nnx.merge(graphdef, state, copy=True)
        before = jax.tree.leaves(nnx.state(fresh))
        for index, layer in enumerate(fresh):
            drawn = {"rngs": nnx.Rngs(jax.random.fold_in(key, index))} if draws else {}
            x = layer(x, **inputs, **(drawn if _takes_rngs(layer) else {}))
        after = jax.tree.leaves(nnx.state(fresh))
        if len(after) != len(before) or any(a is not b for a, b in zip(after, before, strict=True)):
            raise ValueError(
                f"SharedStack expects layers that leave their state as it is. {_name(layers)} "
                "writes to its Variables when called."
            )
        return x, None

    keys = jax.random.split(_key(rngs), repeats) if draws else None
    y = jax.eval_shape(lambda x, keys: body(x, None if keys is None else keys[0])[0], x, keys)
    if y.shape != x.shape:
        raise ValueError(
            f"SharedStack expects layers that keep the shape. {_name(layers)} makes {y.shape} of "
            f"{x.shape}."
        )
    # What the first application would promote anyway: a scan's carry has one type.
    return lax.scan(body, x.astype(y.dtype), keys, length=repeats)[0]


def _key(rngs: nnx.Rngs | jax.Array) -> jax.Array:
    return rngs if isinstance(rngs, jax.Array) else rngs.dropout()


def _takes_rngs(layer: nnx.Module) -> bool:
    return "rngs" in inspect.signature(type(layer).__call__).parameters


def _name(layers: Any) -> str:
    return ", ".join(sorted({type(layer).__name__ for layer in layers}))
