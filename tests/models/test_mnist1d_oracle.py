# SPDX-License-Identifier: Apache-2.0
"""MNIST-1D's models against torch's layers, under the names of the authors' code."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, load, randomised

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def theirs(variant, length):
    """torch's layers under the authors' names, and their forward pass."""
    torch = load("torch")
    linear, conv = torch.nn.Linear, torch.nn.Conv1d
    small = ((length - 3) // 2 + 1 - 1) // 2 + 1
    layers = {
        "linear": {"linear": linear(length, 10)},
        "mlp": {
            "linear1": linear(length, 100),
            "linear2": linear(100, 100),
            "linear3": linear(100, 10),
        },
        "cnn": {
            "conv1": conv(1, 25, 5, stride=2, padding=1),
            "conv2": conv(25, 25, 3, stride=2, padding=1),
            "conv3": conv(25, 25, 3, stride=2, padding=1),
            "linear": linear(25 * ((small - 1) // 2 + 1), 10),
        },
        "gru": {
            "gru": torch.nn.GRU(1, 6, batch_first=True, bidirectional=True),
            "linear": linear(12 * length, 10),
        },
    }
    return randomised(torch.nn.ModuleDict(layers[variant]))


def run(module, x):
    """`x` of shape (b, 1, n)."""
    if "gru" in module:
        return module["linear"](module["gru"](x.mT)[0].flatten(1))
    if "conv1" in module:
        for name in ("conv1", "conv2", "conv3"):
            x = module[name](x).relu()
        return module["linear"](x.flatten(1))
    x = x[:, 0]
    if "linear1" in module:
        x = module["linear1"](x).relu()
        x = x + module["linear2"](x).relu()
    return module["linear3" if "linear3" in module else "linear"](x)


@pytest.mark.parametrize("length", [40, 27])
@pytest.mark.parametrize("variant", ["linear", "mlp", "cnn", "gru"])
def test_logits_equal_torch(variant, length):
    ours = el.models.create(f"mnist1d_{variant}", rngs=nnx.Rngs(0), length=length)
    series = images((length,), batch=3, channels=1)
    check_weights(ours, theirs(variant, length), [series], run=run)
