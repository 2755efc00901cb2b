# SPDX-License-Identifier: Apache-2.0
"""Prune against torch.nn.utils.prune on the same arrays: the same zeros."""

import numpy as np
import pytest

from efficient_layers.compress import apply
from efficient_layers.compress.prune import Prune
from tests.compress.test_prune import example, kernels

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")
pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.55, 0.99])
def test_magnitude_and_the_size_of_random_are_torchs(sparsity):
    net = example()
    found, _ = apply(net, [Prune("**", sparsity=sparsity)])
    drawn, _ = apply(net, [Prune("**", sparsity=sparsity, method="random")])
    for name, w in kernels(net).items():
        holder = torch.nn.ParameterDict({"w": torch.from_numpy(w.copy())})
        prune.l1_unstructured(holder, "w", amount=sparsity)
        np.testing.assert_array_equal(kernels(found)[name], holder.w.detach().numpy())
        holder = torch.nn.ParameterDict({"w": torch.from_numpy(w.copy())})
        prune.random_unstructured(holder, "w", amount=sparsity)
        assert (kernels(drawn)[name] == 0).sum() == (holder.w == 0).sum()


def test_global_magnitude_is_torchs():
    net = example()
    found, log = apply(net, [Prune("**", sparsity=0.7, scope="global")])
    holders = {
        name: torch.nn.ParameterDict({"w": torch.from_numpy(w.copy())})
        for name, w in kernels(net).items()
    }
    pairs = [(holder, "w") for holder in holders.values()]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=0.7)
    for name, holder in holders.items():
        np.testing.assert_array_equal(kernels(found)[name], holder.w.detach().numpy())
    assert {row.path for row in log.touched()} == set(holders)
