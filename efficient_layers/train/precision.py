# SPDX-License-Identifier: Apache-2.0
"""Mixed precision as a policy: `params=f32,compute=bf16,output=f32`.

    Policy.parse("params=f32,compute=bf16,output=f32").apply(model)

`params`: dtype in which weights are stored and updated; `compute`: dtype of matmuls, convolutions
and the activations between layers; `output`: dtype of what the model returns. Independent of it,
statistics of norms and the softmax of attention are computed in float32, and running statistics are
stored in float32 (Micikevicius et al., Mixed Precision Training, 2018, arXiv 1710.03740, section 3;
Kalamkar et al., A Study of BFLOAT16, 2019, arXiv 1905.12322).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.attention import dot_product_attention_weights

_DTYPES: dict[str, Any] = {"f32": jnp.float32, "bf16": jnp.bfloat16, "f16": jnp.float16}
_LONG = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


@dataclasses.dataclass(frozen=True)
class Policy:
    """Three dtypes by name: `f32`, `bf16` or `f16`."""

    params: str = "f32"
    compute: str = "f32"
    output: str = "f32"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            short = _LONG.get(given, given)
            if short not in _DTYPES:
                raise ValueError(
                    f"precision: {field.name} must be one of {', '.join([*_DTYPES, *_LONG])}. "
                    f"Got {given!r}."
                )
            object.__setattr__(self, field.name, short)

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """From `key=dtype` pairs; keys left out are f32. Raises ValueError on other text."""
        chosen: dict[str, str] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            key, found, value = (p.strip() for p in part.partition("="))
            if key not in ("params", "compute", "output") or not found or key in chosen:
                raise ValueError(
                    "a precision policy is written 'params=f32,compute=bf16,output=f32', each key "
                    f"once. Got {text!r}."
                )
            chosen[key] = value
        return cls(**chosen)

    @property
    def compute_dtype(self) -> Any:
        """The dtype of matmuls and convolutions."""
        return _DTYPES[self.compute]

    def apply(self, model: nnx.Module) -> nnx.Module:
        """Makes `model`, fresh from its constructor, follow the policy; returns the same object.

        Works on every module of nnx and of this library: a layer takes part through its attribute
        `dtype`. Paths, shapes and `isinstance` stay, so checkpoints fit. The policy of all f32 (the
        default) changes nothing, not even a dtype that the model was built with.
        """
        if self == Policy():
            return model
        params = nnx.state(model, nnx.Param)
        nnx.update(
            model, jax.tree.map(functools.partial(_cast, dtype=_DTYPES[self.params]), params)
        )
        for _, module in nnx.iter_modules(model):
            if "dtype" in vars(module):
                setattr(module, "dtype", _DTYPES[self.compute])  # noqa: B010
            if vars(module).get("attention_fn") is nnx.dot_product_attention:
                setattr(module, "attention_fn", attention)  # noqa: B010
        # Past the module: its own __setattr__ would record the class as an attribute of the graph.
        object.__setattr__(model, "__class__", _with_output(type(model), _DTYPES[self.output]))
        return model


def _cast(x: Any, dtype: Any) -> Any:
    """Floating arrays to `dtype`; integers, booleans and keys as they are."""
    same = not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype == dtype
    return x if same else x.astype(dtype)


@functools.cache
def _with_output(cls: type, dtype: Any) -> type:
    """`cls` with its result cast; cached, so equal models have equal graph definitions."""

    @functools.wraps(cls.__call__)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        result = cls.__call__(self, *args, **kwargs)
        return jax.tree.map(functools.partial(_cast, dtype=dtype), result)

    names = {"__call__": __call__, "__module__": cls.__module__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), names)


def attention(query: jax.Array, key: jax.Array, value: jax.Array, **options: Any) -> jax.Array:
    """`nnx.dot_product_attention` with a float32 softmax on each of its paths.

    Flax computes it in float32 unless dropout is on or weights are recorded; then in the compute
    dtype, and there this takes the weights in float32. Query [b q n d], key, value [b k n d].
    """
    if not options.get("dropout_rate", 0.0) and options.get("module") is None:
        return nnx.dot_product_attention(query, key, value, **options)
    dtype = options.pop("dtype", None) or value.dtype
    weights = dot_product_attention_weights(query, key, **options, dtype=jnp.float32)
    value = jnp.repeat(value, weights.shape[-3] // value.shape[-2], axis=-2)
    return jnp.einsum("...nqk,...knd->...qnd", weights.astype(dtype), value.astype(dtype))
