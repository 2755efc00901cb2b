# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts: many two-layer networks, of which each token uses a few."""

from collections.abc import Callable
from math import ceil, prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.layers.dropout import dropout_key
from efficient_layers.ops.experts import Routing, balance_loss, combine, dispatch, route
from efficient_layers.ops.precision import float32_or_wider


class MixtureOfExperts(nnx.Module):
    """y_t = sum_{i in top-k of t} g_i(x_t) act(x_t up_i + up_bias_i) down_i + down_bias_i.

    g is the softmax of x router over the experts; for top_k = 1 its value as it is, for more,
    divided by the sum of the chosen ones. The n tokens of one sequence are a group: in it each
    expert takes `capacity(n)` = ceil(capacity_factor top_k n / experts) tokens (n at most), first
    choices before second ones, earlier tokens before later ones, and drops the rest, which then get
    nothing from it (put the layer beside a skip connection). So shapes are static, and what one
    sequence holds never changes another's result. Within a sequence it is not causal while it
    drops: a later token's first choice can take the slot of an earlier token's second. At a
    capacity_factor of experts / top_k nothing is dropped.

    The router computes in float32 at the least. `jitter` multiplies its input by uniform noise in
    1 -+ jitter while training. `out` receives "balance_loss" (add about 0.01 of it to the loss:
    without it a few experts take everything), "dropped" (share of the choices that found no
    slot) and "load" (share of the choices by expert).

    slots = experts * min(n, ceil(capacity_factor * top_k * n / experts))
    groups = positions // n
    biases = (hidden_features + in_features) * use_bias
    params = in_features * experts + experts * (2 * in_features * hidden_features + biases)
    MACs = groups * (n * d * experts + 2 * n * slots * d + 2 * slots * d * hidden_features)

    The middle term is the dispatch as products with one-hot matrices, the form that runs on TPU;
    on CPU and GPU rows are copied instead. Experts hold weights drawn with variance 1 / fan-in.

    Differs from the papers: GShard takes the second expert at random in proportion to its weight,
    here it is always taken; Shazeer et al. learn the noise, here it is Switch's.

    Reference: Shazeer et al., *Outrageously Large Neural Networks* (arXiv 1701.06538), section 2;
    Lepikhin et al., *GShard* (arXiv 2006.16668), algorithm 1; Fedus et al., *Switch
    Transformers* (arXiv 2101.03961), section 2.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.MixtureOfExperts(8, 16, experts=4, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 5, 8))).shape
    (2, 5, 8)

    Raises:
      ValueError: top_k outside 1 ... experts; a capacity_factor that is not positive; a jitter
        outside [0, 1); no rngs in train mode with a jitter above 0; an input of other features
        or without a token axis.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        experts: int,
        top_k: int = 2,
        capacity_factor: float = 1.25,
        jitter: float = 0.0,
        act: Callable[[jax.Array], jax.Array] = nnx.relu,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check(in_features, hidden_features, experts, top_k, capacity_factor, jitter)
        draw = nnx.initializers.lecun_normal(batch_axis=0)
        up, down = (in_features, hidden_features), (hidden_features, in_features)
        router = nnx.initializers.lecun_normal()(rngs.params(), (in_features, experts), param_dtype)
        self.router = nnx.Param(router)
        self.up = nnx.Param(draw(rngs.params(), (experts, *up), param_dtype))
        self.down = nnx.Param(draw(rngs.params(), (experts, *down), param_dtype))
        self.up_bias: Any = nnx.data(None)
        self.down_bias: Any = nnx.data(None)
        if use_bias:
            self.up_bias = nnx.Param(jnp.zeros((experts, hidden_features), param_dtype))
            self.down_bias = nnx.Param(jnp.zeros((experts, in_features), param_dtype))
        self.in_features, self.hidden_features = in_features, hidden_features
        self.experts, self.top_k, self.capacity_factor = experts, top_k, capacity_factor
        self.jitter = jitter
        self.act = act
        self.dtype = dtype
        self.deterministic = False

    def capacity(self, n: int) -> int:
        """Slots that an expert has for a sequence of `n` tokens."""
        wanted = ceil(self.capacity_factor * self.top_k * n / self.experts)
        return max(1, min(n, wanted))

    def __call__(
        self,
        x: Float[Array, "*b n d"],
        *,
        rngs: nnx.Rngs | jax.Array | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "*b n d"]:
        """Tokens of sequences to tokens; `rngs` (or a key) for the jitter in train mode."""
        self._check(x)
        with jax.named_scope("MixtureOfExperts"):
            *batch, n, d = x.shape
            groups = x.reshape(prod(batch), n, d)
            probability = self._probability(groups, rngs)
            routing = route(probability, self.top_k, self.capacity(n))
            if out is not None:
                out.update(self._facts(probability, routing))
            return self._experts(groups, routing).reshape(*batch, n, d)

    def _probability(self, x: jax.Array, rngs: Any) -> jax.Array:
        wide = float32_or_wider(x.dtype)
        x = x.astype(wide)
        if self.jitter and not self.deterministic:
            key = dropout_key(rngs, f"MixtureOfExperts with jitter={self.jitter}")
            low, high = 1 - self.jitter, 1 + self.jitter
            x = x * jax.random.uniform(key, x.shape, wide, low, high)
        logits = jnp.matmul(x, self.router[...].astype(wide), precision=lax.Precision.HIGHEST)
        return jax.nn.softmax(logits, -1)

    def _experts(self, x: jax.Array, routing: Routing) -> jax.Array:
        weights = (self.up, self.down, self.up_bias, self.down_bias)
        values = (None if w is None else w[...] for w in weights)
        arrays: Any = promote_dtype((x, *values), dtype=self.dtype)
        x, up, down, up_bias, down_bias = arrays
        capacity = self.capacity(x.shape[1])
        h = dispatch(x, routing, self.experts, capacity) @ up  # e (g c) f
        h = self.act(h if up_bias is None else h + up_bias[:, None]) @ down
        h = h if down_bias is None else h + down_bias[:, None]
        return combine(h, routing, self.experts, capacity)

    def _facts(self, probability: jax.Array, routing: Routing) -> dict[str, jax.Array]:
        slots = self.experts * self.capacity(probability.shape[1])
        chosen = routing.expert[..., None] == jnp.arange(self.experts)
        return {
            "balance_loss": balance_loss(probability, routing.expert),
            "dropped": (routing.slot == slots).astype(probability.dtype).mean(),
            "load": chosen.astype(probability.dtype).mean((0, 1, 2)),
        }

    def _check(self, x: jax.Array) -> None:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"MixtureOfExperts expects a floating-point input. Got {x.dtype}.")
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            raise ValueError(
                "MixtureOfExperts expects an input of shape (*batch, tokens, "
                f"{self.in_features}). Got {x.shape}."
            )


def _check(
    in_features: int, hidden: int, experts: int, top_k: int, capacity: float, jitter: float
) -> None:
    if min(in_features, hidden, experts) < 1:
        raise ValueError(
            "MixtureOfExperts expects sizes of at least 1. Got "
            f"in_features={in_features}, hidden_features={hidden}, experts={experts}."
        )
    if not 1 <= top_k <= experts:
        raise ValueError(f"MixtureOfExperts expects top_k from 1 to {experts}. Got {top_k}.")
    if not capacity > 0:
        raise ValueError(f"MixtureOfExperts expects a positive capacity_factor. Got {capacity}.")
    if not 0 <= jitter < 1:
        raise ValueError(f"MixtureOfExperts expects a jitter in [0, 1). Got {jitter}.")
