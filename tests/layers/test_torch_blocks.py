# SPDX-License-Identifier: Apache-2.0
"""The blocks against torchvision's and timm's: a training step's outputs, gradients, statistics."""

import sys
import types
from operator import attrgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from tests.layers.case import randomised

torch = pytest.importorskip("torch", reason="torch is an oracle: see docs/dependencies.md")
# torchvision's operators are absent beside a CPU-only torch: there is nothing to register.
sys.modules.setdefault(
    "torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations")
)
pytest.importorskip("torchvision", reason="torchvision is an oracle: see docs/dependencies.md")
pytest.importorskip("timm", reason="timm is an oracle: see docs/dependencies.md")

from timm.models import byobnet, convnext, ghostnet  # noqa: E402
from torchvision.models import shufflenetv2, squeezenet  # noqa: E402

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def conv_bn(ours, theirs_conv, theirs_bn):
    return {f"{ours}.conv": theirs_conv, f"{ours}.bn": theirs_bn}


def ghost(ours, theirs):
    parts = {"primary": "primary_conv", "cheap": "cheap_operation"}
    found = {}
    for part, name in parts.items():
        prefix = f"{theirs}.{name}" if theirs else name
        found |= conv_bn(f"{ours}.{part}".strip("."), f"{prefix}.0", f"{prefix}.1")
    return found


def shuffle_unit(strides):
    branch = {"expand": (0, 1), "depthwise": (3, 4), "project": (5, 6)}
    names = {k: (f"branch2.{a}", f"branch2.{b}") for k, (a, b) in branch.items()}
    if strides > 1:
        names["shortcut_depthwise"] = ("branch1.0", "branch1.1")
        names["shortcut_project"] = ("branch1.2", "branch1.3")
    return {k: v for ours, pair in names.items() for k, v in conv_bn(ours, *pair).items()}


def bottleneck(strides, skips, squeezes):
    names = ghost("expand", "ghost1") | ghost("contract", "ghost2")
    if strides > 1:
        names |= conv_bn("depthwise", "conv_dw", "bn_dw")
    if squeezes:
        names |= {"se.reduce": "se.conv_reduce", "se.expand": "se.conv_expand"}
    if not skips:
        names |= conv_bn("shortcut_depthwise", "shortcut.0", "shortcut.1")
        names |= conv_bn("shortcut_project", "shortcut.2", "shortcut.3")
    return names


def rep_vgg(identity):
    names = conv_bn("conv_kxk", "conv_kxk.conv", "conv_kxk.bn")
    names |= conv_bn("conv_1x1", "conv_1x1.conv", "conv_1x1.bn")
    return names | ({"identity": "identity"} if identity else {})


FIRE = {name: name for name in ("squeeze", "expand1x1", "expand3x3")}
CONVNEXT = {"depthwise": "conv_dw", "norm": "norm", "expand": "mlp.fc1", "project": "mlp.fc2"}


def in_torch(weight):
    """A kernel in torch's order of axes: outputs, inputs, space."""
    weight = np.asarray(weight)
    return weight.transpose(*range(weight.ndim)[::-1][:2], *range(weight.ndim - 2))


def arrays_of(module):
    """{torch's name: array} of one convolution, linear layer or norm, or of its gradient."""
    if hasattr(module, "kernel"):
        named = {"weight": in_torch(module.kernel[...])}
    else:
        named = {"weight": np.asarray(module.scale[...])}
    return named if module.bias is None else named | {"bias": np.asarray(module.bias[...])}


def step_agrees(block, theirs, names, shape, tolerance=2e-5):
    """Copies `block`'s numbers to torch, runs a training step in both, compares all of it."""
    randomised(block).train()
    theirs.train()
    for ours, name in names.items():
        for key, value in arrays_of(attrgetter(ours)(block)).items():
            getattr(theirs.get_submodule(name), key).data = torch.tensor(value)
        if hasattr(attrgetter(ours)(block), "mean"):
            theirs.get_submodule(name).running_mean = torch.tensor(
                np.asarray(attrgetter(ours)(block).mean[...])
            )
            theirs.get_submodule(name).running_var = torch.tensor(
                np.asarray(attrgetter(ours)(block).var[...])
            )
    if getattr(block, "gamma", None) is not None:
        theirs.gamma.data = torch.tensor(np.asarray(block.gamma[...]))
    counted = sum(p.size for p in jax.tree.leaves(nnx.state(block, nnx.Param)))
    assert counted == sum(p.numel() for p in theirs.parameters())

    draw = np.random.default_rng(0)
    x = draw.normal(size=shape).astype(np.float32)
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    ty = theirs(tx)
    weights = draw.normal(size=ty.shape).astype(np.float32)
    (ty * torch.tensor(weights)).sum().backward()

    graphdef, params, rest = nnx.split(block, nnx.Param, ...)

    def loss(params, x):
        model = nnx.merge(graphdef, params, rest, copy=True)
        y = model(x)
        return (y * weights.transpose(0, 2, 3, 1)).sum(), (y, nnx.state(model, nnx.BatchStat))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (dparams, dx), (y, stats) = gradient(params, jnp.asarray(x))
    gradients = nnx.merge(graphdef, dparams, rest)
    nnx.update(block, stats)

    def close(ours, expected):
        expected = expected.detach().numpy()
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(np.asarray(ours) / scale, expected / scale, atol=tolerance)

    close(np.asarray(y).transpose(0, 3, 1, 2), ty)
    close(np.asarray(dx).transpose(0, 3, 1, 2), tx.grad)
    for ours, name in names.items():
        other = theirs.get_submodule(name)
        for key, value in arrays_of(attrgetter(ours)(gradients)).items():
            close(value, getattr(other, key).grad)
        if hasattr(attrgetter(ours)(block), "mean"):
            close(attrgetter(ours)(block).mean[...], other.running_mean)
            close(attrgetter(ours)(block).var[...], other.running_var)
    if getattr(block, "gamma", None) is not None:
        close(gradients.gamma[...], theirs.gamma.grad)


@pytest.mark.parametrize(("sizes", "strides"), [((8, 8), 1), ((6, 12), 2)])
def test_shuffle_unit_is_torchvisions(sizes, strides):
    block = layers.ShuffleUnit(*sizes, strides=strides, rngs=nnx.Rngs(0))
    theirs = shufflenetv2.InvertedResidual(*sizes, strides)
    step_agrees(block, theirs, shuffle_unit(strides), (2, 7, 6, sizes[0]))


def test_fire_is_torchvisions():
    block = layers.Fire(6, 3, 4, 5, rngs=nnx.Rngs(0))
    step_agrees(block, squeezenet.Fire(6, 3, 4, 5), FIRE, (2, 5, 6, 6))


@pytest.mark.parametrize(("ratio", "size", "strides"), [(3, 3, 2)])
def test_ghost_module_is_timms(ratio, size, strides):
    block = layers.GhostModule(4, 7, size, strides, ratio=ratio, rngs=nnx.Rngs(0))
    theirs = ghostnet.GhostModule(4, 7, kernel_size=size, ratio=ratio, stride=strides)
    step_agrees(block, theirs, ghost("", ""), (2, 7, 6, 4))


@pytest.mark.parametrize(
    ("sizes", "strides", "kernel", "se"),
    [((6, 8, 6), 1, 3, 0), ((4, 9, 6), 2, 5, 0.5)],
)
def test_ghost_bottleneck_is_timms(sizes, strides, kernel, se):
    block = layers.GhostBottleneck(
        *sizes, strides=strides, kernel_size=kernel, se_ratio=se, rngs=nnx.Rngs(0)
    )
    theirs = ghostnet.GhostBottleneck(*sizes, dw_kernel_size=kernel, stride=strides, se_ratio=se)
    skips = strides == 1 and sizes[0] == sizes[2]
    step_agrees(block, theirs, bottleneck(strides, skips, se > 0), (2, 7, 6, sizes[0]))


@pytest.mark.parametrize(("sizes", "strides", "groups"), [((4, 4), 1, 2), ((4, 6), 2, 1)])
def test_rep_vgg_and_its_reparameterisation_are_timms(sizes, strides, groups):
    block = layers.RepVGGBlock(
        *sizes, strides=strides, feature_group_count=groups, rngs=nnx.Rngs(0)
    )
    theirs = byobnet.RepVggBlock(*sizes, stride=strides, group_size=sizes[0] // groups)
    names = rep_vgg(block.identity is not None)
    step_agrees(block, theirs, names, (2, 5, 6, sizes[0]))
    theirs.eval()
    theirs.reparameterize()
    ours = arrays_of(block.reparameterise().conv)
    np.testing.assert_allclose(ours["weight"], theirs.reparam_conv.weight.detach(), atol=1e-5)
    np.testing.assert_allclose(ours["bias"], theirs.reparam_conv.bias.detach(), atol=1e-5)


def test_conv_next_block_is_timms():
    block = layers.ConvNeXtBlock(6, layer_scale=0.5, rngs=nnx.Rngs(0))
    theirs = convnext.ConvNeXtBlock(6, ls_init_value=0.5)
    step_agrees(block, theirs, CONVNEXT, (2, 9, 8, 6))
