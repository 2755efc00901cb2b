# SPDX-License-Identifier: Apache-2.0
"""Removal, folding, low rank and integers in one call, rebuilt from the edits alone."""

import jax
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, measure, models
from tests.compress.test_apply import logits, reloaded
from tests.compress.test_fold import drawn

X = np.asarray(jax.random.normal(jax.random.key(0), (4, 32, 32, 3)))


def base() -> nnx.Module:
    return models.create("mobilenet_v2", width=0.35, num_classes=20, rngs=nnx.Rngs(0))


@pytest.mark.slow
def test_remove_fold_low_rank_int8():
    steps = [
        compress.RemoveChannels("**", ratio=0.5),
        compress.FoldBatchNorm(),
        compress.LowRank("classifier", rank=8),
        compress.LowRank("**", params=0.8),
        compress.Quantize("**", activations="static", keep_ends=False),
    ]
    model = drawn(base())
    small, log = compress.apply(model, steps, example=X, data=[X])
    assert log.before.bytes / log.after.bytes > 6
    assert log.macs_after < log.macs_before / 1.8
    found = measure.executed(small, X)
    assert {"int8"} <= set(found.dots) | set(found.convolutions) <= {"int8", "int32"}  # no floats

    def empty():
        model = base()
        model.eval()
        return model

    np.testing.assert_array_equal(logits(reloaded(empty, small, log.edits), X), logits(small, X))
