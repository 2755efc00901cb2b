# SPDX-License-Identifier: Apache-2.0
"""AdaRound: whether each weight goes up or down is learned on the error of the layer's output."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from efficient_layers.compress.rounding_problem import Problem

_LOW, _HIGH = -0.1, 1.1  # gamma and zeta: the sigmoid stretched beyond [0, 1], then cut
_WARM_UP = 0.2
_BETA = (20.0, 2.0)
_WEIGHT = 10.0
_RATE = 0.01


def adaround(problem: Problem, *, iterations: int = 1000) -> Int[np.ndarray, "g d o"]:
    """Codes floor(w / scale) + (0 or 1) + zero of few errors in E ||x W - x W_q||^2.

    Adam on V, from the V whose h(V) is the fraction of w / scale, in one `lax.scan`:

        h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)
        W(V) = scale (clip(floor(w / scale) + h(V) + zero, least, most) - zero)
        loss = E ||x W - x W(V)||^2 + lambda sum(1 - |2 h(V) - 1|^beta)

    lambda is 0 in the first fifth, then beta falls from 20 to 2 and drives h(V) to 0 or 1. No data
    is kept: with D = W(V) - W, E ||x D||^2 = tr(D^T E[x x^T] D). The layers of one shape share a
    program.

    Reference: Nagel et al., *Up or Down? Adaptive Rounding for Post-Training Quantization* (arXiv
    2004.10568), section 3.2, equations 21 to 25. Differs from the paper: the squared error of
    every output is divided by that of nearest rounding, so that lambda (10 over the number of
    inputs; theirs is 0.01) does not depend on the size of x; 1,000 steps of 0.01 in place of
    10,000 of 0.001; the input is that of the float model, and no activation function is applied
    to the output (equation 25 has both).
    """
    grid = (problem.w, problem.moment, problem.scale, problem.zero)
    arrays = (jnp.asarray(a, jnp.float32) for a in grid)
    least, most = problem.least, problem.most
    # The floor in float64: float32 may put a weight that lies on the grid beneath it.
    floor = np.floor(problem.w / problem.scale)
    up = _learned(*arrays, jnp.asarray(floor, jnp.float32), iterations, least, most)
    codes = floor + np.asarray(up) + problem.zero
    return np.clip(codes, least, most).astype(np.int64)


@partial(jax.jit, static_argnames=("iterations", "least", "most"))
def _learned(
    w: Float[Array, "g d o"],
    moment: Float[Array, "g d d"],
    scale: Float[Array, "g d o"],
    zero: Float[Array, "g d o"],
    floor: Float[Array, "g d o"],
    iterations: int,
    least: int,
    most: int,
) -> Float[Array, "g d o"]:
    """1 where a weight goes up, 0 where it goes down."""
    fraction = w / scale - floor

    def errors(up: Array) -> Array:
        """Twice the squared error of each output, to be differentiated: one product, not two."""
        d = scale * (jnp.clip(floor + up + zero, least, most) - zero) - w
        return 2 * (d * jax.lax.stop_gradient(moment @ d)).sum(1, keepdims=True)

    nearest = errors(jnp.round(fraction)) / 2
    unit = jnp.where(nearest > 0, nearest, 1.0)

    def loss(v: Array, beta: Array, weight: Array) -> Array:
        h = _rectified(v)
        undecided = 1 - jnp.abs(2 * h - 1) ** beta
        return (errors(h) / unit).sum() + weight * undecided.mean(1).sum()

    adam = optax.adam(_RATE)

    def step(carry: tuple, progress: Array) -> tuple[tuple, None]:
        v, state = carry
        after = jnp.maximum(progress - _WARM_UP, 0) / (1 - _WARM_UP)
        beta = _BETA[0] + (_BETA[1] - _BETA[0]) * after
        gradient = jax.grad(loss)(v, beta, _WEIGHT * (progress >= _WARM_UP))
        updates, state = adam.update(gradient, state)
        return (optax.apply_updates(v, updates), state), None

    v = -jnp.log((_HIGH - _LOW) / (fraction - _LOW) - 1)
    progress = jnp.arange(iterations) / iterations
    (v, _), _ = jax.lax.scan(step, (v, adam.init(v)), progress)
    return (_rectified(v) >= 0.5).astype(w.dtype)


def _rectified(v: Array) -> Array:
    return jnp.clip(jax.nn.sigmoid(v) * (_HIGH - _LOW) + _LOW, 0, 1)
