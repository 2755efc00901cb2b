# SPDX-License-Identifier: Apache-2.0
"""torch and timm as oracles of layers: imports that skip with a reason, weights carried over."""

import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx


def timm_blocks() -> Any:
    """timm's blocks of EfficientNet and MobileNet."""
    pytest.importorskip("torch", reason="torch is an oracle: see docs/dependencies.md")
    # torchvision's operators are absent beside a CPU-only torch: there is nothing to register.
    name = "torchvision._meta_registrations"
    sys.modules.setdefault(name, types.ModuleType(name))
    reason = "timm is an oracle: see docs/dependencies.md"
    return pytest.importorskip("timm.models._efficientnet_blocks", reason=reason)


def transformers_module(name: str) -> Any:
    """`transformers.models.NAME.modeling_NAME`."""
    pytest.importorskip("torch", reason="torch is an oracle: see docs/dependencies.md")
    registrations = "torchvision._meta_registrations"  # as in `timm_blocks`
    sys.modules.setdefault(registrations, types.ModuleType(registrations))
    reason = "transformers is an oracle: see docs/dependencies.md"
    return pytest.importorskip(f"transformers.models.{name}.modeling_{name}", reason=reason)


def randomise(theirs: Any, seed: int = 0) -> Any:
    """Every parameter and statistic of a torch module drawn at random (variances positive)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.is_floating_point():
                tensor.copy_(0.4 * noise)
    return theirs.eval()


def copy(theirs: Any, ours: list[Any]) -> None:
    """Fills our convolutions and normalisations from torch's, which come in the same order."""
    import torch

    kinds = torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.BatchNorm2d
    modules = [m for m in theirs.modules() if isinstance(m, kinds)]
    assert len(modules) == len(ours)
    for module, layer in zip(modules, ours, strict=True):
        for name, tensor in module.state_dict().items():
            value = tensor.numpy()
            if name == "num_batches_tracked":
                continue
            if isinstance(layer, nnx.BatchNorm):
                names = {"weight": "scale", "running_mean": "mean", "running_var": "var"}
                variable = getattr(layer, names.get(name, name))
            else:
                variable = layer.kernel if name == "weight" else layer.bias
                value = np.moveaxis(value, (0, 1), (-1, -2)) if name == "weight" else value
            assert variable[...].shape == value.shape
            variable[...] = jnp.asarray(value.copy())


def parts(*blocks: Any) -> list[Any]:
    """Convolutions and normalisations of ConvBNAct and SqueezeExcite, in order of their call."""
    names = ("conv", "bn", "reduce", "expand")
    return [getattr(b, name) for b in blocks if b is not None for name in names if hasattr(b, name)]


def call(theirs: Any, x: np.ndarray) -> np.ndarray:
    """A torch module on a channels-last array."""
    import torch

    with torch.inference_mode():
        y = theirs(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    return np.moveaxis(y, 1, -1)


def assert_equal(ours: Any, theirs: Any, shape: tuple[int, ...], tolerance: float = 2e-6) -> None:
    """Outputs on the same normal input, relative to the largest."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = call(theirs, x)
    ours.eval()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        jax.jit(ours)(jnp.asarray(x)) / scale, expected / scale, atol=tolerance
    )
