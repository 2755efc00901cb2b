# SPDX-License-Identifier: Apache-2.0
"""The block of RepVGG: three branches to train, one convolution to run."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.layers.batch_norm import BatchNorm
from efficient_layers.layers.conv import Conv
from efficient_layers.layers.conv_bn_act import ConvBNAct
from efficient_layers.ops.fold_batch_norm import fold_batch_norm


class RepVGGBlock(nnx.Module):
    """y = act(BN(conv_kxk(x)) + BN(conv_1x1(x)) + BN(x)); `reparameterise` makes it act(conv(x)).

    The identity branch `identity` is there where strides = 1 and in_features = out_features, else
    None. With `reparameterised=True` the block has `conv` (k x k, with bias) in place of branches.

    weights = in_features // feature_group_count * out_features
    taps = kernel_size**2 if reparameterised else kernel_size**2 + 1
    same = strides == 1 and in_features == out_features
    numbers = 1 if reparameterised else 6 if same else 4
    params = taps * weights + numbers * out_features
    MACs = h2 * w2 * taps * weights

    Reference: Ding et al., *RepVGG: Making VGG-style ConvNets Great Again* (arXiv 2101.03697),
    sections 3.2 and 3.3, figure 4.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> block = el.layers.RepVGGBlock(4, 4, rngs=nnx.Rngs(0))
    >>> block.reparameterise()(jnp.ones((1, 5, 5, 4))).shape
    (1, 5, 5, 4)

    Raises:
      ValueError: a kernel of even size; groups that do not divide the channels; an input of other
        rank or channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 3,
        strides: int = 1,
        *,
        feature_group_count: int = 1,
        act: Callable[[jax.Array], jax.Array] | None = jax.nn.relu,
        reparameterised: bool = False,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                "RepVGGBlock expects an odd kernel_size: the 1x1 branch is its centre. "
                f"Got {kernel_size}."
            )
        self.sizes = (in_features, out_features, kernel_size, strides)
        self.feature_group_count = feature_group_count
        self.act = act
        self.dtype, self.param_dtype = dtype, param_dtype
        settings: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv: Conv | None = nnx.data(None)
        self.conv_kxk: ConvBNAct | None = nnx.data(None)
        self.conv_1x1: ConvBNAct | None = nnx.data(None)
        self.identity: BatchNorm | None = nnx.data(None)
        if reparameterised:
            self.conv = Conv(
                in_features,
                out_features,
                (kernel_size, kernel_size),
                strides,
                padding=kernel_size // 2,
                feature_group_count=feature_group_count,
                **settings,
            )
            return
        norm = {"momentum": momentum, "epsilon": epsilon, **settings}
        branch: dict[str, Any] = {"feature_group_count": feature_group_count, "act": None, **norm}
        self.conv_kxk = ConvBNAct(*self.sizes, **branch)
        self.conv_1x1 = ConvBNAct(in_features, out_features, 1, strides, **branch)
        if strides == 1 and in_features == out_features:
            self.identity = BatchNorm(out_features, unbiased_running_var=True, **norm)

    def __call__(
        self, x: Float[Array, "*b h w c"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "*b h2 w2 o"]:
        """`out` receives "conv_kxk", "conv_1x1", "identity" (or "conv"), before the activation."""
        with jax.named_scope("RepVGGBlock"):
            branches = ("conv_kxk", "conv_1x1", "identity", "conv")
            present = {name: getattr(self, name) for name in branches}
            named = {name: part(x) for name, part in present.items() if part is not None}
            y = reduce(jnp.add, named.values())
            y = y if self.act is None else self.act(y)
        if out is not None:
            out.update(named)
        return y

    def reparameterise(self) -> "RepVGGBlock":
        """A new block with one convolution that computes what this one does in eval mode.

        Exact up to rounding (about 1e-6 of the largest output in float32). This block stays as it
        is. Of a re-parameterised block, a copy.
        """

        def made() -> RepVGGBlock:
            return RepVGGBlock(
                *self.sizes,
                feature_group_count=self.feature_group_count,
                act=self.act,
                reparameterised=True,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                rngs=nnx.Rngs(0),
            )

        plain = nnx.eval_shape(made)  # both parameters are replaced: none is drawn
        kernel, bias = self._kernel_and_bias()
        assert plain.conv is not None
        plain.conv.kernel = nnx.Param(kernel.astype(self.param_dtype))
        plain.conv.bias = nnx.Param(bias.astype(self.param_dtype))
        return plain

    def _kernel_and_bias(self) -> tuple[jax.Array, jax.Array]:
        """The branches' kernels, BatchNorm folded in, added around the centre of k x k."""
        if self.conv is not None:
            assert self.conv.bias is not None
            return jnp.array(self.conv.kernel[...]), jnp.array(self.conv.bias[...])
        assert self.conv_kxk is not None
        assert self.conv_1x1 is not None
        kernel, bias = _folded(self.conv_kxk.conv.kernel[...], self.conv_kxk.bn)
        centre = self.sizes[2] // 2
        others = [_folded(self.conv_1x1.conv.kernel[...], self.conv_1x1.bn)]
        if self.identity is not None:
            per_group = kernel.shape[-2]
            unit = jnp.tile(jnp.eye(per_group), (1, self.feature_group_count))
            others.append(_folded(unit[None, None], self.identity))
        for kernel_1x1, shift in others:
            kernel = kernel.at[centre, centre].add(kernel_1x1[0, 0])
            bias = bias + shift
        return kernel, bias


def _folded(kernel: jax.Array, bn: BatchNorm) -> tuple[jax.Array, jax.Array]:
    scale = None if bn.scale is None else bn.scale[...]
    bias = None if bn.bias is None else bn.bias[...]
    return fold_batch_norm(kernel, bn.mean[...], bn.var[...], scale, bias, epsilon=bn.epsilon)
