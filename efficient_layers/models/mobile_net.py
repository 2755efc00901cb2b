# SPDX-License-Identifier: Apache-2.0
"""What MobileNetV1, V2, MnasNet and EfficientNet do with an image, and activations by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers import layers, ops
from efficient_layers.layers.dropout import drop
from efficient_layers.models.fields import nearest

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "relu6": ops.relu6,
    "hard_swish": ops.hard_swish,
    "silu": jax.nn.silu,
}

PADDINGS: dict[str, Any] = {"torch": None, "SAME": "SAME"}


def check_choices(family: str, act: str, padding: str) -> None:
    """ValueError where a config names an activation or a padding that is not known."""
    for field, value, known in (("act", act, ACTIVATIONS), ("padding", padding, PADDINGS)):
        if value not in known:
            raise ValueError(f"{family} has no {field} {value!r}. {nearest(value, known)}")


def check_images(model: nnx.Module, x: jax.Array, channels: int) -> None:
    """ValueError where `x` is not (b, h, w, channels)."""
    if x.ndim != 4 or x.shape[-1] != channels:
        raise ValueError(
            f"{type(model).__name__} expects images of shape (b, h, w, {channels}). "
            f"Got {x.shape}. Pass in_channels=... to create for other channels."
        )


class MobileNet(nnx.Module):
    """Stem, blocks, 1x1 head where there is one, global mean, dropout, classifier."""

    config: Any
    stem: layers.ConvBNAct
    blocks: nnx.List
    head: layers.ConvBNAct | None
    dropout: nnx.Dropout
    classifier: nnx.Linear | None

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features (b, head) where num_classes is 0.

        Args:
          rngs: key of what is dropped; needed in train mode where a rate of the config is above 0.
          out: filled with "stem", "blocks/0", ..., "head", "features" and "logits".
        """
        check_images(self, x, self.config.in_channels)
        out = {} if out is None else out
        out["stem"] = x = self.stem(x)
        for index, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks/{index}"):
                out[f"blocks/{index}"] = x = self.run_block(block, x, rngs)
        if self.head is not None:
            out["head"] = x = self.head(x)
        out["features"] = x = jnp.mean(x, axis=(1, 2))
        if self.classifier is None:
            return x
        out["logits"] = x = self.classifier(drop(self.dropout, x, rngs))
        return x

    def run_block(self, block: nnx.Module, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """`block(x)`; with `rngs` where blocks drop something."""
        return block(x)
