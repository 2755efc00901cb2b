# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2 and the plain CNN against torch: equal costs, logits and training steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.evidence import torch_side
from tests.models.published import check_weights, images, load, randomised, torch_model
from tests.models.training_step import check_training_step

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CLASSES = 7
LABELS = np.arange(8, dtype=np.int32) % CLASSES


def test_cost_counted_by_torch_hooks():
    """MACs and output elements of every layer, from the shapes torch really runs."""
    torch = load("torch")
    counted = {"macs": 0, "activations": 0}

    def hook(module, _, output):
        counted["activations"] += output.numel()
        counted["macs"] += output.numel() * module.weight[0].numel()

    with torch.device("meta"):
        theirs = torch_model("timm", "mobilenetv2_100").eval()
        for module in theirs.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.register_forward_hook(hook)
        theirs(torch.zeros(1, 3, 224, 224))
    ours = nnx.eval_shape(lambda: el.models.create("mobilenet_v2", rngs=nnx.Rngs(0)))
    cost = el.measure.cost(ours, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert {"macs": cost.macs, "activations": cost.activations} == counted


def test_logits_equal_timms():
    theirs = randomised(torch_model("timm", "mobilenetv2_035", num_classes=CLASSES))
    ours = el.models.create("mobilenetv2_035", num_classes=CLASSES, rngs=nnx.Rngs(0))
    check_weights(ours, theirs, [images((32, 32)), images((49, 33))], source="timm")


def test_mobilenet_v2_is_torchvisions():
    """Logits and a training step, on a short table of blocks, strides and a residual included."""
    stages = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]
    theirs = torch_model(
        "torchvision",
        "mobilenet_v2",
        width_mult=0.35,
        num_classes=CLASSES,
        dropout=0.0,
        inverted_residual_setting=stages,
    )
    fields = {"width": 0.35, "num_classes": CLASSES, "dropout_rate": 0.0, "stages": stages}
    ours = el.models.create("mobilenet_v2", rngs=nnx.Rngs(0), **fields)
    check_weights(ours, randomised(theirs), [images((32, 32)), images((49, 33))])
    check_training_step(ours, theirs, *images((32, 32), batch=8), LABELS)


def test_plain_cnn_equals_torch():
    theirs = randomised(torch_side.menghani_cnn(load("torch"), num_classes=CLASSES))
    fields = {"num_classes": CLASSES, "dropout_rate": 0.0}
    ours = el.models.create("menghani_cnn", rngs=nnx.Rngs(0), **fields)
    check_weights(ours, theirs, [images((32, 32)), images((32, 32), batch=3)])
    check_training_step(ours, theirs, *images((32, 32), batch=8), LABELS)
