# SPDX-License-Identifier: Apache-2.0
"""Convolution as one primitive that is closed under every JAX transform.

A convolution y = x * w is linear in x and in w, so for any cotangent g of y the number <g, x * w>
is linear in each of x, w and g. Fixing two of the three gives the three maps that training needs:

    y  = form.forward(x, w)             missing = 2
    dx = form.input_gradient(w, g)      missing = 0
    dw = form.kernel_gradient(x, g)     missing = 1

The derivative of each is the map itself (a product rule), its transpose is one of the other two.
One primitive with the parameter `missing` therefore serves grad, jvp, jacfwd, hessian and any
nesting, and each of them runs the fast form. (A `custom_vjp` would forbid forward mode,
`linear_call` has no batching rule.) The form is a static parameter: a VJP called later, under
another lowering, keeps it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from efficient_layers.ops.window import Window


@dataclass(frozen=True)
class Form:
    """How to compute a convolution and its two gradients; this one leaves all three to XLA."""

    window: Window

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of x, w and y."""
        return self.window.x, self.window.w, self.window.y

    @property
    def dtype(self):
        return self.window.dtype

    def forward(self, x: jax.Array, w: jax.Array) -> jax.Array:
        return self.window.convolve(x, w)

    def input_gradient(self, w: jax.Array, g: jax.Array) -> jax.Array:
        x = jax.ShapeDtypeStruct(self.window.x, self.dtype)
        return jax.linear_transpose(lambda x: self.window.convolve(x, w), x)(g)[0]

    def kernel_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
        w = jax.ShapeDtypeStruct(self.window.w, self.dtype)
        return jax.linear_transpose(lambda w: self.window.convolve(x, w), w)(g)[0]

    def with_batch(self, n: int) -> "Form":
        return replace(self, window=replace(self.window, x=(n, *self.window.x[1:])))

    def map_members(self, function: Callable, *operands: jax.Array) -> jax.Array:
        """`function` over the leading axis of both operands, one after the other.

        vmap would make a grouped convolution of XLA's, and a loop (`lax.map`) keeps it from its
        fast kernels: a 3x3 of 64 channels took 11 times as long.
        """
        return jnp.stack([function(*pair) for pair in zip(*operands, strict=True)])


@dataclass(frozen=True)
class Members:
    """`size` independent convolutions of one form, stacked on a new leading axis of x, w and y."""

    form: Any
    size: int

    @property
    def shapes(self):
        return tuple((self.size, *shape) for shape in self.form.shapes)

    @property
    def dtype(self):
        return self.form.dtype

    def forward(self, x, w):
        return self.form.map_members(self.form.forward, x, w)

    def input_gradient(self, w, g):
        return self.form.map_members(self.form.input_gradient, w, g)

    def kernel_gradient(self, x, g):
        return self.form.map_members(self.form.kernel_gradient, x, g)

    map_members = Form.map_members  # members of members too


def convolve(form: Form, x: jax.Array, w: jax.Array) -> jax.Array:
    """x * w, computed and differentiated as `form` says."""
    return _trilinear.bind(x, w, form=form, missing=2)


_trilinear = Primitive("trilinear")


def _run(a, b, *, form, missing):
    return (form.input_gradient, form.kernel_gradient, form.forward)[missing](a, b)


@cache
def _compiled(form, missing):
    return jax.jit(partial(_trilinear.bind, form=form, missing=missing))


def _eager(a, b, *, form, missing):
    return _compiled(form, missing)(a, b)


def _abstract(a, b, *, form, missing):
    return jax.core.ShapedArray(form.shapes[missing], form.dtype)


def _transpose(g, a, b, *, form, missing):
    """The cotangent takes the missing place; the operand that was linear is the new missing one."""
    first, second = [role for role in range(3) if role != missing]
    linear, other = (first, second) if ad.is_undefined_primal(a) else (second, first)
    if isinstance(g, ad.Zero):
        return None, None
    operands = {missing: g, other: b if linear == first else a}
    ordered = [operands[role] for role in sorted(operands)]
    result = _trilinear.bind(*ordered, form=form, missing=linear)
    return (result, None) if linear == first else (None, result)


def _jvp(primals, tangents, **params):
    a, b = primals
    da, db = tangents
    out = _trilinear.bind(a, b, **params)
    terms = []
    if not isinstance(da, ad.Zero):
        terms.append(_trilinear.bind(da, b, **params))
    if not isinstance(db, ad.Zero):
        terms.append(_trilinear.bind(a, db, **params))
    return out, sum(terms[1:], terms[0])


def _batch(operands, axes, *, form, missing):
    """Without a batched kernel the new axis joins the batch; otherwise members stay apart."""
    size = next(o.shape[a] for o, a in zip(operands, axes, strict=True) if a is not None)
    roles = [role for role in range(3) if role != missing]
    batched = {role: axis is not None for role, axis in zip(roles, axes, strict=True)}
    joins = missing != 1 and not batched[1] and isinstance(form, Form)
    if joins:
        n = form.window.x[0]
        stacked = [
            o if a is None else jnp.moveaxis(o, a, 0).reshape(size * n, *form.shapes[r][1:])
            for o, a, r in zip(operands, axes, roles, strict=True)
        ]
        out = _trilinear.bind(*stacked, form=form.with_batch(size * n), missing=missing)
        return out.reshape(size, *form.shapes[missing]), 0
    stacked = [
        jnp.broadcast_to(o, (size, *o.shape)) if a is None else jnp.moveaxis(o, a, 0)
        for o, a in zip(operands, axes, strict=True)
    ]
    return _trilinear.bind(*stacked, form=Members(form, size), missing=missing), 0


_trilinear.def_impl(_eager)
_trilinear.def_abstract_eval(_abstract)
ad.primitive_jvps[_trilinear] = _jvp
ad.primitive_transposes[_trilinear] = _transpose
batching.primitive_batchers[_trilinear] = _batch
mlir.register_lowering(_trilinear, mlir.lower_fun(_run, multiple_results=False))
