# SPDX-License-Identifier: Apache-2.0
"""What the registry knows about a family."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from efficient_layers.models.torch_weights import TorchNames


@dataclasses.dataclass(frozen=True)
class Family:
    """`model(config(**fields), rngs=rngs)` builds a member; it keeps the config as `.config`.

    Attributes:
      names: public names of members in timm, torchvision and transformers -> fields.
      torch: source ("timm", "torchvision", "transformers"; "torch" for a twin in `evidence/`) ->
        how its weights are named.
    """

    name: str
    config: type
    model: Callable[..., nnx.Module]
    names: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    torch: Mapping[str, TorchNames] = dataclasses.field(default_factory=dict)
