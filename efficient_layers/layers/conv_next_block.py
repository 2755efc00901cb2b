# SPDX-License-Identifier: Apache-2.0
"""The block of ConvNeXt: a large depthwise convolution, then a transformer's MLP."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.layers.depthwise_conv import DepthwiseConv
from efficient_layers.layers.drop_path import DropPath
from efficient_layers.layers.layer_norm import LayerNorm
from efficient_layers.ops.activation import gelu


class ConvNeXtBlock(nnx.Module):
    """y = x + drop_path(gamma project(act(expand(norm(depthwise(x)))))).

    `depthwise` is k x k with bias, `expand` and `project` are linear layers over the channels,
    hidden = expand_ratio x in_features wide, `gamma` (layer scale) is one number a channel, None
    with `layer_scale=None`. In train mode a call with drop_path > 0 needs `rngs`.

    hidden = round(expand_ratio * in_features)
    scales = 0 if layer_scale is None else in_features
    biases = 4 * in_features + hidden
    params = in_features * (kernel_size**2 + 2 * hidden) + biases + scales
    MACs = h * w * in_features * (kernel_size**2 + 2 * hidden)

    Differs from the paper: nothing; initialisation is a truncated normal of deviation 0.02, zero
    biases. GELU is the exact one, epsilon of the norm 1e-6, as in the authors' code.

    Reference: Liu et al., *A ConvNet for the 2020s* (arXiv 2201.03545), section 2, figure 4; layer
    scale: Touvron et al., *Going deeper with Image Transformers* (arXiv 2103.17239), section 2.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.ConvNeXtBlock(8, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 5, 8))).shape
    (1, 5, 5, 8)

    Raises:
      ValueError: a hidden width below 1, an even kernel_size; an input of other rank or channels;
        train mode without `rngs` where drop_path > 0.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        *,
        kernel_size: int = 7,
        expand_ratio: float = 4,
        layer_scale: float | None = 1e-6,
        drop_path: float = 0.0,
        act: Callable[[jax.Array], jax.Array] = gelu,
        epsilon: float = 1e-6,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        hidden = round(expand_ratio * in_features)
        if hidden < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                "ConvNeXtBlock expects expand_ratio x in_features of at least 1 and an odd "
                f"kernel_size. Got {expand_ratio} x {in_features} and kernel_size={kernel_size}."
            )
        settings: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        drawn = {"kernel_init": nnx.initializers.truncated_normal(0.02), **settings}
        self.depthwise = DepthwiseConv(in_features, kernel_size, **drawn)
        self.norm = LayerNorm(in_features, epsilon=epsilon, **settings)
        self.expand = nnx.Linear(in_features, hidden, **drawn)
        self.project = nnx.Linear(hidden, in_features, **drawn)
        self.gamma: nnx.Param | None = nnx.data(None)
        if layer_scale is not None:
            self.gamma = nnx.Param(jnp.full((in_features,), layer_scale, param_dtype))
        self.drop_path = DropPath(drop_path)
        self.act = act

    def __call__(
        self,
        x: Float[Array, "*b h w c"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "*b h w c"]:
        """`out` receives "depthwise", "norm", "expand" (after its activation), "project"."""
        with jax.named_scope("ConvNeXtBlock"):
            named = {"depthwise": self.depthwise(x)}
            y = named["norm"] = self.norm(named["depthwise"])
            # As one (positions, c) matrix: the weights' gradient of a product over several batch
            # axes is 3x slower on a CPU.
            flat = self.act(self.expand(y.reshape(-1, y.shape[-1])))
            named["expand"] = flat.reshape(*y.shape[:-1], self.expand.out_features)
            y = named["project"] = self.project(flat).reshape(y.shape)
            if self.gamma is not None:
                y = y * self.gamma[...].astype(y.dtype)
            y = x.astype(y.dtype) + self.drop_path(y, rngs=rngs)
        if out is not None:
            out.update(named)
        return y
