# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation layer: a drop-in replacement of `flax.nnx.BatchNorm`."""

import jax
from flax import nnx


class BatchNorm(nnx.BatchNorm):
    """`flax.nnx.BatchNorm`; `unbiased_running_var=True` keeps torch's running variance."""

    def __init__(self, num_features, *, unbiased_running_var=False, **kwargs):
        super().__init__(num_features, **kwargs)
        self.unbiased_running_var = unbiased_running_var

    def __call__(self, x, use_running_average=None, *, mask=None):
        with jax.named_scope("BatchNorm"):
            return super().__call__(x, use_running_average, mask=mask)
