# SPDX-License-Identifier: Apache-2.0
"""Scores of weights: the lowest go first.

    magnitude   |w|                             (Han et al., 2015, arXiv 1506.02626)
    random      uniform in [0, 1), by `seed`
    taylor      mean over batches of (g w)^2    (Molchanov et al., 2019, arXiv 1906.10771)
    snip        |w * mean over batches of g|    (Lee et al., 2019, arXiv 1810.02340)
    movement    -w * mean over batches of g     (Sanh et al., 2020, arXiv 2005.07683)
    wanda       |w| * ||x||_2 of its input x    (Sun et al., 2024, arXiv 2306.11695)

g is the gradient of `loss` at the weights as they are, in eval mode: BatchNorm uses its running
statistics. Movement is a sum over training steps; this is its first term, `gradual` adds them up.
Taylor and SNIP are the papers' with scope "global".
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.compress.edits import module_at
from efficient_layers.compress.technique import Context
from efficient_layers.learn import supervised
from efficient_layers.measure.view import call, view
from efficient_layers.models.paths import at

Arrays = Mapping[str, Array]

NEEDS: Mapping[str, frozenset[str]] = {
    "magnitude": frozenset(),
    "random": frozenset(),
    "taylor": frozenset({"data", "loss"}),
    "snip": frozenset({"data", "loss"}),
    "movement": frozenset({"data", "loss"}),
    "wanda": frozenset({"data"}),
}


def scores(method: str, context: Context, weights: Arrays, *, seed: int) -> dict[str, Array]:
    """Scores in float32, by the path of the array; those that `method` cannot score are left out.

    Raises:
      ValueError: data without a batch; scores that are not finite.
    """
    found: dict[str, Array] = {}
    if method == "magnitude":
        found = {name: magnitude(w) for name, w in weights.items()}
    elif method == "random":
        found = {name: random(name, w.shape, seed) for name, w in weights.items()}
    elif method == "wanda":
        norms = input_norms(context, {owner(name) for name in weights})
        found = {
            name: magnitude(w) * norms[owner(name)][:, None]
            for name, w in weights.items()
            if _scored_by_inputs(context.model, name, w, norms)
        }
    else:
        found = _from_gradients(method, context, weights)
    for name, array in found.items():
        if not bool(jnp.isfinite(array).all()):
            raise ValueError(
                f"{method}: the scores of {name} are not finite. "
                "Look for NaN or infinity in its weights, in `data` and in the gradients of `loss`."
            )
    return found


def magnitude(w: Array) -> Array:
    return jnp.abs(w.astype(jnp.float32))


def random(name: str, shape: tuple[int, ...], seed: Any) -> Array:
    """Numbers that depend on the array's path, not on what else is pruned."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.uniform(key, shape)


def input_norms(context: Context, paths: set[str]) -> dict[str, Float[Array, "d"]]:
    """||x||_2 of every input feature of the modules at `paths`, over all positions of all batches.

    Modules that are never called are left out.
    """
    model = view(context.model)
    graphdef, state = nnx.split(model)

    @jax.jit
    def sums(state: Any, batch: Any) -> dict[str, Array]:
        model = nnx.merge(graphdef, state, copy=True)
        found: dict[str, Array] = {}
        for path in paths:
            _record(module_at(model, path), functools.partial(_add, found, path))
        forward(context, model, batch)
        return found

    total: dict[str, Array] = {}
    try:
        for batch in context.data:
            for path, squares in sums(state, batch).items():
                total[path] = total.get(path, jnp.float32(0)) + squares
    except jax.errors.UnexpectedTracerError as error:
        raise ValueError(
            "wanda: a matched module is called inside a transform (scan, remat), where its input "
            f"cannot be recorded. Matched: {', '.join(sorted(paths))}."
        ) from error
    if not total:
        raise ValueError("wanda: `data` holds no batch, or no matched module is called on it.")
    return {path: jnp.sqrt(squares) for path, squares in total.items()}


def forward(context: Context, model: Any, batch: Any) -> None:
    """Runs the model on a batch: by `loss` where one is given, else on the batch's inputs."""
    if context.loss is not None:
        context.loss(model, batch)
    elif isinstance(batch, Mapping) and ("image" in batch or "tokens" in batch):
        x, mask = supervised.inputs(batch)
        supervised.call(model, x, mask=mask)
    else:
        call(model, batch)


def _from_gradients(method: str, context: Context, weights: Arrays) -> dict[str, Array]:
    graphdef, state = nnx.split(view(context.model))

    def loss(weights: Arrays, state: Any, batch: Any) -> Array:
        model = nnx.merge(graphdef, state, copy=True)
        for name, value in weights.items():
            at(model, name).set_value(value)
        assert context.loss is not None
        return context.loss(model, batch)

    @jax.jit
    def term(weights: Arrays, state: Any, batch: Any) -> dict[str, Array]:
        found = jax.grad(loss)(weights, state, batch)
        products = {k: (g * weights[k]).astype(jnp.float32) for k, g in found.items()}
        return {k: p**2 for k, p in products.items()} if method == "taylor" else products

    total, count = dict.fromkeys(weights, jnp.float32(0)), 0
    for batch in context.data:
        found = term(dict(weights), state, batch)
        total, count = {name: total[name] + found[name] for name in weights}, count + 1
    if not count:
        raise ValueError(f"{method}: `data` holds no batch.")
    end: Callable[[Array], Array] = {"snip": jnp.abs, "movement": jnp.negative}.get(
        method, lambda x: x
    )
    return {name: end(value / count) for name, value in total.items()}


def owner(name: str) -> str:
    """The path of the module that owns an array; "" is the model itself."""
    return name.rpartition("/")[0]


def _scored_by_inputs(model: Any, name: str, w: Array, norms: Arrays) -> bool:
    """Whether the rows of `w` belong to the input features: Linear, convolution without groups."""
    path = owner(name)
    groups = getattr(module_at(model, path), "feature_group_count", 1)
    known = name.rpartition("/")[2] == "kernel" and groups == 1 and path in norms
    return known and norms[path].shape[0] == w.shape[-2]


def _add(found: dict[str, Array], path: str, x: Any) -> None:
    if hasattr(x, "shape") and x.ndim:
        squares = (x.astype(jnp.float32) ** 2).sum(tuple(range(x.ndim - 1)))
        found[path] = found[path] + squares if path in found else squares


def _record(module: Any, see: Callable[[Any], None]) -> None:
    """From now on `module` shows its first input to `see`."""
    vars(module)["_see"] = see
    module.__class__ = _seen(type(module))


@functools.cache
def _seen(kind: type) -> type:
    """A subclass rather than a wrapper around the module: attributes and isinstance stay."""

    def call(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        vars(self)["_see"](x)
        return kind.__call__(self, x, *args, **kwargs)  # type: ignore[operator]

    return type(kind.__name__, (kind,), {"__call__": call})
