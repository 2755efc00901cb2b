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

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.compress.edits import module_at
from efficient_layers.compress.observe import observe
from efficient_layers.compress.technique import Context
from efficient_layers.measure.view import view
from efficient_layers.models.paths import at

NEEDS: Mapping[str, frozenset[str]] = {
    "magnitude": frozenset(),
    "random": frozenset(),
    "taylor": frozenset({"data", "loss"}),
    "snip": frozenset({"data", "loss"}),
    "movement": frozenset({"data", "loss"}),
    "wanda": frozenset({"data"}),
}


def scores(
    method: str, context: Context, weights: Mapping[str, np.ndarray], *, seed: int
) -> dict[str, np.ndarray]:
    """Scores in float32, by the path of the array; those that `method` cannot score are left out.

    In NumPy: what is done once an array is not worth compiling for each shape.

    Raises:
      ValueError: data without a batch; scores that are not finite.
    """
    found: dict[str, Any] = {}
    if method == "magnitude":
        found = {name: magnitude(w) for name, w in weights.items()}
    elif method == "random":
        found = {name: random(name, w.shape, seed) for name, w in weights.items()}
    elif method == "wanda":
        kernels = [name for name in weights if name.rpartition("/")[2] == "kernel"]
        norms = input_norms(context, map(owner, kernels))
        found = {
            name: magnitude(w) * norms[owner(name)][:, None]
            for name, w in weights.items()
            if _scored_by_inputs(context.model, name, w, norms)
        }
    else:
        found = _from_gradients(method, context, weights)
    found = {name: np.asarray(array) for name, array in found.items()}
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise ValueError(
                f"{method}: the scores of {name} are not finite. "
                "Look for NaN or infinity in its weights, in `data` and in the gradients of `loss`."
            )
    return found


def magnitude(w: Any) -> Any:
    """|w| in float32, of a NumPy or a JAX array."""
    return abs(w.astype(np.float32))


def random(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Numbers that depend on the array's path, not on what else is pruned."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return generator.random(shape, np.float32)


def drawn(name: str, shape: tuple[int, ...], key: Array) -> Array:
    """The like, under jit."""
    return jax.random.uniform(jax.random.fold_in(key, zlib.crc32(name.encode())), shape)


def input_norms(context: Context, paths: Iterable[str]) -> dict[str, Float[np.ndarray, "d"]]:
    """||x||_2 of every input feature of the modules at `paths`, over all positions of all batches.

    A batch is given to `loss(model, batch)`, else to `model(batch)`. Modules that are never called
    are left out.
    """
    squares: dict[str, np.ndarray] = {}

    def add(path: str, value: np.ndarray) -> None:
        squares[path] = squares.get(path, 0) + value

    observe(context.model, dict.fromkeys(paths, _squares), context.data, add, loss=context.loss)
    if not squares:
        raise ValueError("wanda: `data` holds no batch, or no matched module is called on it.")
    return {path: np.sqrt(total).astype(np.float32) for path, total in squares.items()}


def _squares(x: Array) -> Array:
    return (x.astype(jnp.float32) ** 2).sum(tuple(range(x.ndim - 1)))


def _from_gradients(
    method: str, context: Context, weights: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    graphdef, state = nnx.split(view(context.model))

    def loss(weights: Any, state: Any, batch: Any) -> Array:
        model = nnx.merge(graphdef, state, copy=True)
        for name, value in weights.items():
            at(model, name).set_value(value)
        assert context.loss is not None
        return context.loss(model, batch)

    @jax.jit
    def term(weights: Any, state: Any, batch: Any) -> dict[str, Array]:
        found = jax.grad(loss)(weights, state, batch)
        products = {k: (g * weights[k]).astype(jnp.float32) for k, g in found.items()}
        return {k: p**2 for k, p in products.items()} if method == "taylor" else products

    total: dict[str, Any] = dict.fromkeys(weights, 0.0)
    count = 0
    for batch in context.data:
        found = term(dict(weights), state, batch)
        total = {name: total[name] + np.asarray(found[name]) for name in weights}
        count += 1
    if not count:
        raise ValueError(f"{method}: `data` holds no batch.")
    sign = {"snip": abs, "movement": lambda x: -x}.get(method, lambda x: x)
    return {name: sign(value / count) for name, value in total.items()}


def owner(name: str) -> str:
    """The path of the module that owns an array; "" is the model itself."""
    return name.rpartition("/")[0]


def _scored_by_inputs(
    model: Any, name: str, w: np.ndarray, norms: Mapping[str, np.ndarray]
) -> bool:
    """Whether the rows of `w` belong to the input features: Linear, convolution without groups."""
    path = owner(name)
    groups = getattr(module_at(model, path), "feature_group_count", 1)
    known = name.rpartition("/")[2] == "kernel" and groups == 1 and path in norms
    return known and norms[path].shape[0] == w.shape[-2]
