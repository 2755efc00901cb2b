# SPDX-License-Identifier: Apache-2.0
"""A case as a JAX call: one jitted program, state on the device, training state donated."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from efficient_layers import layers, models
from efficient_layers.evidence.attention_side import SelfAttention
from efficient_layers.evidence.cases import (
    GPT2,
    Case,
    ConvBNReLU6,
    Convolution,
    Model,
    SoftmaxAttention,
)
from efficient_layers.evidence.plain import plain
from efficient_layers.ops.compiler_options import compiler_options
from efficient_layers.train.state import merge, split

Call = Callable[[], Any]
LEARNING_RATE, MOMENTUM = 0.01, 0.9


def call(case: Case, *, as_plain: bool = False) -> Call:
    """A zero-argument callable that runs `case` once and returns its arrays.

    Args:
      as_plain: with flax's layers in place of ours (see `plain.py`).
    """
    module = _module(case)
    module = plain(module) if as_plain else module
    x = jnp.asarray(inputs(case))
    if case.mode == "inference":
        return forward(module, x)
    if isinstance(case.subject, Model):
        return _training_step(module, x, jnp.asarray(labels(case)))
    return gradients(module, x)


def inputs(case: Case) -> np.ndarray:
    """The same for all sides: standard normal float32, (b, h, w, c), or tokens, int32 (b, n)."""
    generator, shape = np.random.default_rng(0), (case.batch, *case.image)
    if isinstance(case.subject, Model) and case.subject.vocabulary:
        return generator.integers(0, case.subject.vocabulary, shape, np.int32)
    return generator.standard_normal(shape, np.float32)


def labels(case: Case) -> np.ndarray:
    """int32 (b,) below 10, the fewest classes of any model; of a language model (b, n)."""
    if case.subject is GPT2:
        return np.roll(inputs(case), -1, axis=1)
    return np.arange(case.batch, dtype=np.int32) % 10


def _module(case: Case) -> nnx.Module:
    subject, c, rngs = case.subject, case.image[-1], nnx.Rngs(0)
    if isinstance(subject, Model):
        return models.create(subject.name, **subject.fields, rngs=rngs)
    if isinstance(subject, Convolution):
        return layers.Conv(c, **_convolution(subject), use_bias=False, rngs=rngs)
    if isinstance(subject, ConvBNReLU6):
        return layers.ConvBNAct(c, **_convolution(subject.convolution), rngs=rngs)
    if isinstance(subject, SoftmaxAttention):
        return SelfAttention(subject.causal)
    return layers.BatchNorm(c, momentum=0.9, unbiased_running_var=True, rngs=rngs)


def _convolution(subject: Convolution) -> dict[str, Any]:
    return {
        "out_features": subject.out_features,
        "kernel_size": (subject.kernel_size,) * 2,
        "strides": subject.strides,
        "padding": [(subject.padding,) * 2] * 2,
        "feature_group_count": subject.groups,
    }


def forward(module: nnx.Module, x: jax.Array) -> Call:
    """The output of `module` in eval mode."""
    module.eval()
    graphdef, params, rest = split(module)
    apply = _jit(lambda params, rest, x: merge(graphdef, params, rest)(x))
    return lambda: apply(params, rest, x)


def gradients(module: nnx.Module, x: jax.Array) -> Call:
    """Output, running statistics and all gradients under a fixed cotangent.

    Those of the parameters, and of x unless x is tokens.
    """
    module.train()
    graphdef, params, rest = split(module)
    draws = "rngs" in inspect.signature(type(module).__call__).parameters

    def forward(params: Any, rest: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        merged = merge(graphdef, params, rest)
        y = merged(x, rngs=nnx.Rngs(0)) if draws else merged(x)
        return y, split(merged)[2]

    @_jit
    def both(params: Any, rest: Any, x: jax.Array, cotangent: jax.Array) -> tuple:
        moving = (params, x) if jnp.issubdtype(x.dtype, jnp.inexact) else (params,)
        y, pull, new_rest = jax.vjp(lambda p, x=x: forward(p, rest, x), *moving, has_aux=True)
        return y, new_rest, pull(cotangent)

    y = jax.eval_shape(forward, params, rest, x)[0]
    cotangent = jnp.asarray(np.random.default_rng(1).standard_normal(y.shape), y.dtype)
    return lambda: both(params, rest, x, cotangent)


def _jit(function: Callable, **options: Any) -> Any:
    return jax.jit(function, compiler_options=compiler_options(), **options)


def _training_step(module: nnx.Module, x: jax.Array, y: jax.Array) -> Call:
    module.train()
    graphdef, params, rest = split(module)
    tx = optax.sgd(LEARNING_RATE, MOMENTUM)

    def loss(params: Any, rest: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Any]:
        merged = merge(graphdef, params, rest)
        losses = optax.softmax_cross_entropy_with_integer_labels(merged(x), y)
        return losses.mean(), split(merged)[2]

    def step(state: tuple, x: jax.Array, y: jax.Array) -> tuple:
        params, rest, moments = state
        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params, rest, x, y)
        updates, moments = tx.update(grads, moments, params)
        return (optax.apply_updates(params, updates), rest, moments), value

    jitted = _jit(step, donate_argnums=0)
    state = (params, rest, tx.init(params))

    def once() -> Any:
        nonlocal state
        state, value = jitted(state, x, y)
        return state, value

    return once
