# SPDX-License-Identifier: Apache-2.0
"""ViT and DeiT against timm and torchvision: equal logits, equal training step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import (
    check_weights,
    images,
    load,
    randomised,
    relative_error,
    torch_model,
)

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CLASSES = 7


def ours(name, **fields):
    return el.models.create(name, num_classes=CLASSES, rngs=nnx.Rngs(0), **fields)


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize(
    ("name", "token_scale"),
    [("vit_tiny_patch16_224", 1), ("deit_tiny_distilled_patch16_224", 2)],
)
def test_logits_equal_timm(name, token_scale, size):
    theirs = torch_model("timm", name, depth=2, img_size=size, num_classes=CLASSES)
    model = ours(name, depth=2, image_size=size)
    assert model.config.tokens == (size // 16) ** 2 + token_scale
    check_weights(model, randomised(theirs), [images((size, size))], source="timm")


@pytest.mark.parametrize("size", [32, 64])
def test_logits_equal_torchvision(size):
    load("torch")
    load("torchvision")
    from torchvision.models import vision_transformer

    theirs = vision_transformer.VisionTransformer(
        image_size=size,
        patch_size=32,
        num_layers=2,
        num_heads=3,
        hidden_dim=96,
        mlp_dim=384,
        num_classes=CLASSES,
    )
    model = ours("vit_b_32", features=96, num_heads=3, depth=2, image_size=size)
    check_weights(model, randomised(theirs), [images((size, size))], source="torchvision")


def test_distillation_logits_equal_timm():
    torch = load("torch")
    name = "deit_tiny_distilled_patch16_224"
    theirs = randomised(torch_model("timm", name, depth=1, img_size=32, num_classes=CLASSES))
    model = ours(name, depth=1, image_size=32)
    el.models.load_torch(model, theirs.state_dict())
    x, x_torch = images((32, 32))
    theirs.train()
    theirs.set_distilled_training(True)
    out = {}
    model(x, out=out)
    with torch.no_grad():
        expected = theirs(x_torch)
    for logits, key in zip(expected, ("class_logits", "distillation_logits"), strict=True):
        assert relative_error(out[key], logits) < 1e-4


def test_training_step_equals_timm():
    """One step of SGD on vit_tiny (two blocks): the loss and every weight after it."""
    torch = load("torch")
    name = "vit_tiny_patch16_224"
    theirs = randomised(torch_model("timm", name, depth=2, img_size=32, num_classes=CLASSES))
    model = ours(name, depth=2, image_size=32)
    before = {k: v.numpy().copy() for k, v in theirs.state_dict().items()}
    el.models.load_torch(model, before)
    x, x_torch = images((32, 32), batch=8)
    y = np.arange(8, dtype=np.int32) % CLASSES

    theirs.train()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    expected = torch.nn.functional.cross_entropy(theirs(x_torch), torch.from_numpy(y).long())
    expected.backward()
    optimizer.step()

    loss = sgd_step(model, x, jnp.asarray(y), optax.sgd(0.1, 0.9))
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    after = {k: v.numpy() for k, v in theirs.state_dict().items()}
    for key, value in el.models.export_torch(model, "timm").items():
        step = np.abs(after[key] - before[key]).max()
        error = np.abs(value - after[key]).max()
        # The gradient of a key's bias is 0 but for rounding: hence the absolute part.
        assert error < 1e-3 * step + 1e-6, (key, error, step)


def sgd_step(model, x, y, tx):
    """One step in place, jitted; the loss before it."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        logits = nnx.merge(graphdef, params, rest, copy=True)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params):
        value, grads = jax.value_and_grad(loss)(params)
        updates, _ = tx.update(grads, tx.init(params), params)
        return optax.apply_updates(params, updates), value

    params, value = step(params)
    nnx.update(model, params)
    return float(value)
