# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2 and the plain CNN against torch: equal logits, equal training step.

No weights can be downloaded here, so torch's are drawn at random, running statistics included.
"""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.evidence import torch_side

torch = pytest.importorskip("torch", reason="torch is an oracle: see docs/dependencies.md")
# torchvision's operators are absent beside a CPU-only torch: there is nothing to register.
sys.modules.setdefault(
    "torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations")
)
timm = pytest.importorskip("timm", reason="timm is an oracle: see docs/dependencies.md")

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

WIDTH, CLASSES = 0.35, 7


@pytest.fixture(scope="module")
def torchvision_models():
    return pytest.importorskip("torchvision.models", reason="torchvision is an oracle")


def randomised(module):
    """`module` with every parameter and statistic drawn at random."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim > 1:
                tensor.mul_(0.5).add_(0.5 * tensor.std() * noise)
            elif tensor.is_floating_point():
                tensor.add_(0.2 * noise)
    return module


def copy_weights(source, model):
    """Fills `model` from a torch module whose layers come in the same order."""
    ours = [m for m in in_order(model) if isinstance(m, nnx.Conv | nnx.Linear | nnx.BatchNorm)]
    kinds = torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d
    theirs = [m for m in source.modules() if isinstance(m, kinds)]
    assert len(ours) == len(theirs)
    for layer, module in zip(ours, theirs, strict=True):
        for name, value in as_ours(module).items():
            variable = getattr(layer, name)
            assert variable[...].shape == value.shape
            variable[...] = jnp.asarray(value)


def as_ours(module):
    """A torch layer's tensors by our names, in our layout."""
    weight = module.weight.detach().numpy()
    values = {} if module.bias is None else {"bias": module.bias.detach().numpy()}
    if isinstance(module, torch.nn.BatchNorm2d):
        mean, var = module.running_mean.numpy(), module.running_var.numpy()
        return values | {"scale": weight, "mean": mean.copy(), "var": var.copy()}
    axes = (2, 3, 1, 0) if weight.ndim == 4 else (1, 0)
    return values | {"kernel": weight.transpose(axes)}


def in_order(module):
    """Modules in the order of their call, which is torch's order of registration."""
    if isinstance(module, el.models.MobileNetV2):
        children = [module.stem, *module.blocks, module.head, module.classifier]
    elif isinstance(module, el.models.MenghaniCNN):
        children = [*module.convs, module.dense, module.classifier]
    elif isinstance(module, el.layers.InvertedResidual):
        children = [m for m in (module.expand, module.depthwise, module.project) if m is not None]
    elif hasattr(module, "bn"):
        children = [module.conv, module.bn]
    else:
        return [module]
    return [leaf for child in children for leaf in in_order(child)]


def images(size, batch=2):
    x = np.random.default_rng(1).standard_normal((batch, *size, 3)).astype(np.float32)
    return jnp.asarray(x), torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.fixture(scope="module")
def pair():
    theirs = randomised(timm.create_model("mobilenetv2_035", num_classes=CLASSES))
    ours = el.models.create(
        "mobilenetv2_035", num_classes=CLASSES, dropout_rate=0, rngs=nnx.Rngs(0)
    )
    copy_weights(theirs, ours)
    return ours, theirs


def step(model, params, rest, moments, x, y):
    """One step of SGD with momentum, jitted; returns (params, rest, loss)."""
    graphdef = nnx.split(model, nnx.Param, ...)[0]
    tx = optax.sgd(0.1, 0.9)

    def loss(params, rest):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(merged(x), y)
        return losses.mean(), nnx.state(merged, nnx.Not(nnx.Param))

    (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params, rest)
    updates, _ = tx.update(grads, moments, params)
    return optax.apply_updates(params, updates), rest, value


@pytest.mark.parametrize("width", [0.35, 1.0, 1.4])
def test_parameter_counts(width, torchvision_models):
    theirs = torchvision_models.mobilenet_v2(width_mult=width)
    ours = nnx.eval_shape(lambda: el.models.create("mobilenet_v2", width=width, rngs=nnx.Rngs(0)))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(ours, nnx.Param)))
    assert count == sum(p.numel() for p in theirs.parameters())


def test_cost_counted_by_torch_hooks():
    """MACs and output elements of every layer, from the shapes torch really runs."""
    counted = {"macs": 0, "activations": 0}

    def hook(module, _, output):
        counted["activations"] += output.numel()
        counted["macs"] += output.numel() * module.weight[0].numel()

    with torch.device("meta"):
        theirs = timm.create_model("mobilenetv2_100").eval()
        for module in theirs.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.register_forward_hook(hook)
        theirs(torch.zeros(1, 3, 224, 224))
    ours = nnx.eval_shape(lambda: el.models.create("mobilenet_v2", rngs=nnx.Rngs(0)))
    cost = el.measure.cost(ours, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert {"macs": cost.macs, "activations": cost.activations} == counted


@pytest.mark.parametrize("size", [(32, 32), (49, 33)])
def test_logits_equal_timm(pair, size):
    ours, theirs = pair
    x, x_torch = images(size)
    with torch.inference_mode():
        expected = theirs.eval()(x_torch).numpy()
    graphdef, state = nnx.split(nnx.view(ours, deterministic=True, use_running_average=True))
    logits = jax.jit(lambda state: nnx.merge(graphdef, state, copy=True)(x))(state)
    assert relative_error(logits, expected) < 1e-4


def train_both(ours, theirs, x, x_torch, y):
    """Losses of one SGD step on both sides; both models hold what came of it."""
    theirs.train()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    value = torch.nn.functional.cross_entropy(theirs(x_torch), torch.from_numpy(y).long())
    value.backward()
    optimizer.step()
    ours.train()
    _, params, rest = nnx.split(ours, nnx.Param, ...)
    moments = optax.sgd(0.1, 0.9).init(params)
    jitted = jax.jit(lambda p, r, m: step(ours, p, r, m, x, jnp.asarray(y)))
    params, rest, loss = jitted(params, rest, moments)
    nnx.update(ours, params, rest)
    return float(loss), value.item()


def assert_equal_weights(ours, theirs, tolerance):
    """Every parameter and running statistic; `tolerance` is relative to the largest of a tensor."""
    kinds = torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d
    layers = [m for m in in_order(ours) if isinstance(m, nnx.Conv | nnx.Linear | nnx.BatchNorm)]
    modules = [m for m in theirs.modules() if isinstance(m, kinds)]
    for index, (layer, module) in enumerate(zip(layers, modules, strict=True)):
        for name, expected in as_ours(module).items():
            error = relative_error(getattr(layer, name)[...], expected)
            assert error < tolerance, (index, type(layer).__name__, name, error)


def test_training_step_equals_torchvision(torchvision_models):
    """On a short table of blocks, strides and a residual included."""
    stages = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]
    theirs = torchvision_models.mobilenet_v2(
        width_mult=WIDTH, num_classes=CLASSES, dropout=0.0, inverted_residual_setting=stages
    )
    fields = {"width": WIDTH, "num_classes": CLASSES, "dropout_rate": 0, "stages": stages}
    ours = el.models.create("mobilenet_v2", rngs=nnx.Rngs(0), **fields)
    copy_weights(randomised(theirs), ours)
    x, x_torch = images((32, 32), batch=8)
    loss, expected = train_both(ours, theirs, x, x_torch, np.arange(8, dtype=np.int32) % CLASSES)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert_equal_weights(ours, theirs, 2e-3)


def test_plain_cnn_equals_torch():
    theirs = randomised(torch_side.menghani_cnn(torch))
    ours = el.models.create("menghani_cnn", dropout_rate=0, rngs=nnx.Rngs(0))
    copy_weights(theirs, ours)
    # Flattening: torch (c h w), ours (h w c).
    dense = theirs[-3].weight.detach().numpy().reshape(-1, 128, 4, 4)
    ours.dense.kernel[...] = jnp.asarray(np.moveaxis(dense, 1, -1).reshape(len(dense), -1).T)
    x, x_torch = images((32, 32), batch=4)
    with torch.inference_mode():
        expected = theirs.eval()(x_torch).numpy()
    ours.eval()
    assert relative_error(ours(x), expected) < 1e-4
    loss, expected = train_both(ours, theirs, x, x_torch, np.arange(4, dtype=np.int32))
    assert loss == pytest.approx(expected, rel=1e-4)
