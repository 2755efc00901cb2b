# SPDX-License-Identifier: Apache-2.0
"""Models of timm, torchvision and transformers: without weights, or with random ones.

Nothing can be downloaded here, so weights are drawn, running statistics included.
"""

import functools
import importlib
import sys
import types

import numpy as np
import pytest


def load(name):
    """The package, or a skip with the reason."""
    # torchvision's operators are absent beside a CPU-only torch: there is nothing to register.
    key = "torchvision._meta_registrations"
    sys.modules.setdefault(key, types.ModuleType(key))
    reason = f"{name} is an oracle: see docs/dependencies.md"
    return pytest.importorskip(name, reason=reason)


def torch_model(source, name, **fields):
    """Their model of that public name.

    For transformers a public name is looked up in `TRANSFORMERS`: (config class, model class,
    fields of the config), since its own table needs the network.
    """
    torch = load("torch")
    load(source)
    if source == "timm":
        return importlib.import_module("timm").create_model(name, **fields)
    if source == "torchvision":
        return getattr(importlib.import_module("torchvision.models"), name)(**fields)
    transformers = importlib.import_module("transformers")
    config, model, preset = TRANSFORMERS[name]
    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**{**preset, **fields}))


TRANSFORMERS: dict[str, tuple[str, str, dict]] = {}


def published_parameters(source, name):
    """How many parameters the package's model has; nothing is allocated."""
    torch = load("torch")
    with torch.device("meta"):
        return sum(p.numel() for p in torch_model(source, name).parameters())


def randomised(module, seed=0):
    """`module` in eval mode with every parameter and statistic drawn at random."""
    torch = load("torch")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim > 1 and tensor.is_floating_point():
                tensor.mul_(0.5).add_(0.5 * tensor.std() * noise)
            elif tensor.is_floating_point():
                tensor.add_(0.2 * noise)
    return module.eval()


def images(size, batch=2, channels=3):
    """(ours, theirs): the same standard normal images, channels last and first."""
    torch = load("torch")
    x = np.random.default_rng(1).standard_normal((batch, *size, channels)).astype(np.float32)
    return x, torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def relative_error(ours, theirs):
    """Largest difference over the largest value of theirs."""
    theirs = np.asarray(theirs.detach() if hasattr(theirs, "detach") else theirs)
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def check_weights(ours, theirs, inputs, run=None, tolerance=1e-4, source=None):
    """Their random weights in ours: equal outputs on each of `inputs`, bit-equal round trip.

    Args:
      theirs: in eval mode, randomised.
      inputs: pairs (ours, theirs) of inputs, as `images` makes.
      run: their module, their input -> their output; None calls it.
    """
    import jax
    from flax import nnx

    import efficient_layers as el

    torch = load("torch")
    state_dict = theirs.state_dict()
    assert el.models.load_torch(ours, state_dict, source=source) == []
    back = el.models.export_torch(ours, source)
    theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in back.items()}, strict=False)
    for name, value in back.items():
        assert np.array_equal(value, state_dict[name].numpy()), name
    ours.eval()
    graphdef, state = nnx.split(ours)
    forward = jax.jit(lambda state, x: nnx.merge(graphdef, state, copy=True)(x))
    for x, x_torch in inputs:
        with torch.inference_mode():
            expected = (run or functools.partial(torch.nn.Module.__call__))(theirs, x_torch)
        assert relative_error(forward(state, x), expected) < tolerance
