# SPDX-License-Identifier: Apache-2.0
"""Supervised objectives: `objective(model, batch, rngs) -> (loss, metrics)`.

The same callable serves training (gradient of `loss`) and evaluation (`model` in eval mode, `rngs`
None). All losses are means over the examples whose `batch["mask"]` is 1 (all, where there is no
mask), computed in float32 whatever the dtype of the logits.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

Batch = Mapping[str, Any]
Metrics = dict[str, Float[Array, ""]]
Objective = Callable[[Any, Batch, nnx.Rngs | None], tuple[Float[Array, ""], Metrics]]


def call(
    model: Callable[..., Any],
    x: Any,
    *,
    rngs: nnx.Rngs | None = None,
    out: dict[str, Any] | None = None,
    mask: Array | None = None,
) -> Any:
    """`model(x)`, a tuple as `model(*x)`, a dict as `model(**x)`.

    `rngs`, `out` and `mask` (of tokens, True = no padding) go only to a model whose `__call__`
    names them, so any module of anybody fits.
    """
    named = inspect.signature(model).parameters
    given = {"rngs": rngs, "out": out, "mask": mask}
    extra = {k: v for k, v in given.items() if v is not None and k in named}
    if isinstance(x, tuple):
        return model(*x, **extra)
    return model(**x, **extra) if isinstance(x, dict) else model(x, **extra)


def inputs(batch: Batch) -> tuple[Array, Array | None]:
    """What a model sees of a batch: images, or tokens and their boolean mask (None: no padding)."""
    if "image" in batch:
        return batch["image"], None
    mask = batch.get("token_mask")
    return batch["tokens"], None if mask is None else mask.astype(bool)


def classification(*, label_smoothing: float = 0.0, l2: float = 0.0) -> Objective:
    """Softmax cross-entropy on `batch["image"]` [b, ...] (or "tokens" [b, n]) and `batch["label"]`.

    Labels are integers [b], or probabilities [b, k] (mixup, teachers). With p = (1 - s) onehot +
    s / k for the smoothing s (Szegedy et al., Rethinking the Inception Architecture, 2016, arXiv
    1512.00567, section 7):

        loss = mean_b(-sum_k p_bk log softmax(logits)_bk) + l2 * sum over kernels of w^2

    Metrics: `loss`; `cross_entropy` (without smoothing and l2); `accuracy`; from 100 classes on
    `top5_accuracy`. A label outside 0..k-1 cannot be seen under jit: its row counts as loss 0 and
    wrong, so sources check labels (data/). The l2 term has no factor 1/2 and leaves biases and
    norms out (Keras' `l2`).

    Raises:
      ValueError: smoothing outside [0, 1), l2 below 0; when called, logits or labels of a shape
        other than the above.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1). Got {label_smoothing}.")
    if l2 < 0:
        raise ValueError(f"l2 must be >= 0. Got {l2}.")

    def objective(model: Any, batch: Batch, rngs: nnx.Rngs | None) -> tuple[Array, Metrics]:
        if "label" not in batch:
            raise ValueError(
                f"classification needs a label a row; this batch has {', '.join(sorted(batch))}. "
                "Choose another objective (language_modelling, say) or data set."
            )
        x, token_mask = inputs(batch)
        logits = call(model, x, rngs=rngs, mask=token_mask)
        label, mask = batch["label"], batch.get("mask")
        _check_shapes(logits, label, mask)
        target = _probabilities(label, logits.shape[-1])
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
        plain = -jnp.sum(target * log_p, axis=-1)
        uniform = -jnp.mean(log_p, axis=-1)
        cross_entropy = masked_mean(plain, mask)
        loss = masked_mean((1 - label_smoothing) * plain + label_smoothing * uniform, mask)
        if l2:
            loss = loss + l2 * kernel_norm2(model)
        scores = {"accuracy": top_k(logits, label, 1)}
        if logits.shape[-1] >= 100:
            scores["top5_accuracy"] = top_k(logits, label, 5)
        means = {name: masked_mean(score, mask) for name, score in scores.items()}
        return loss, {"loss": loss, "cross_entropy": cross_entropy, **means}

    return objective


def masked_mean(values: Float[Array, "*b"], mask: Float[Array, "*b"] | None) -> Float[Array, ""]:
    """Mean over the entries whose mask is 1; 0 where there is none. NaN in the rest is ignored."""
    if mask is None:
        return jnp.mean(values)
    mask = mask.astype(values.dtype)
    kept = jnp.where(mask > 0, values * mask, 0)
    return jnp.sum(kept) / jnp.maximum(jnp.sum(mask), 1)


def top_k(logits: Float[Array, "b k"], label: Array, k: int) -> Float[Array, "b"]:
    """1.0 where the true class is among the `k` highest logits, else 0.0.

    Ties and NaN count against the model: one that says the same for all classes is not right.
    """
    label = jnp.argmax(label, axis=-1) if label.ndim == 2 else label
    logits = logits.astype(jnp.float32)
    true = jnp.take_along_axis(logits, label[:, None], axis=-1, mode="fill", fill_value=jnp.nan)
    not_below = jnp.sum(~(logits < true), axis=-1)
    return (not_below <= k).astype(jnp.float32)


def kernel_norm2(model: Any) -> Float[Array, ""]:
    """Sum of squares over every Param named `kernel` (or `..._kernel`), in float32."""
    total = jnp.float32(0)
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if str(path[-1]).endswith("kernel"):
            total += jnp.sum(jnp.square(leaf[...].astype(jnp.float32)))
    return total


def _probabilities(label: Array, classes: int) -> Float[Array, "b k"]:
    if label.ndim == 2:
        return label.astype(jnp.float32)
    return jax.nn.one_hot(label, classes, dtype=jnp.float32)


def _check_shapes(logits: Array, label: Array, mask: Array | None) -> None:
    if logits.ndim != 2:
        raise ValueError(f"classification needs logits [b, classes]. Got {logits.shape}.")
    whole = jnp.issubdtype(label.dtype, jnp.integer)
    expected = logits.shape[:1] if whole else logits.shape
    if label.shape != expected:
        raise ValueError(
            f"labels must be integers {logits.shape[:1]} or probabilities {logits.shape} for "
            f"logits {logits.shape}. Got {label.dtype}{list(label.shape)}."
        )
    if mask is not None and mask.shape != logits.shape[:1]:
        raise ValueError(f"mask must have shape {logits.shape[:1]}. Got {mask.shape}.")
