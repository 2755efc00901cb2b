# SPDX-License-Identifier: Apache-2.0
"""BERT and its relatives against transformers: models of each head, tokens, masks, segments."""

import importlib

import jax
import numpy as np
from flax import nnx

from tests.models.published import TRANSFORMERS, load, randomised, relative_error

VOCABULARY, CLASSES = 97, 7

# The shape of any head's output.
OUTPUTS = {
    "Model": lambda result: result.pooler_output,
    "ForSequenceClassification": lambda result: result.logits,
    "ForMaskedLM": lambda result: result.logits,
}
# What `create` is told for each.
FIELDS = {
    "Model": {},
    "ForSequenceClassification": {"num_classes": CLASSES},
    "ForMaskedLM": {"head": "mlm"},
}


def tokens(n, batch=2, seed=1):
    """(ours, theirs): the same random tokens, without padding."""
    torch = load("torch")
    x = np.random.default_rng(seed).integers(1, VOCABULARY, (batch, n)).astype(np.int32)
    return x, torch.from_numpy(x.astype(np.int64))


def their_model(name, head, **fields):
    """Their random model of a public name with a head of `OUTPUTS`, shrunk by `fields`."""
    load("torch")
    load("transformers")
    transformers = importlib.import_module("transformers")
    config, model, preset = TRANSFORMERS[name]
    made = getattr(transformers, config)(**{**preset, "num_labels": CLASSES, **fields})
    return randomised(getattr(transformers, model.removesuffix("Model") + head)(made))


def check_padded(ours, theirs, output, n=11, segments=True):
    """Equal outputs on tokens with padding at the end of a row, and on pairs of sentences."""
    torch = load("torch")
    x, x_torch = tokens(n, seed=2)
    inputs = {"mask": np.arange(n) < np.array([[n], [n - 4]])}
    given = {"attention_mask": torch.from_numpy(inputs["mask"].astype(np.int64))}
    if segments:
        inputs["segments"] = (np.arange(n) > np.array([[4], [2]])).astype(np.int32)
        given["token_type_ids"] = torch.from_numpy(inputs["segments"].astype(np.int64))
    ours.eval()
    graphdef, state = nnx.split(ours)
    forward = jax.jit(lambda state, x, i: nnx.merge(graphdef, state, copy=True)(x, **i))
    with torch.inference_mode():
        expected = output(theirs(x_torch, **given)).numpy()
    found = np.asarray(forward(state, x, inputs))
    if expected.ndim == 3:  # of padding itself, nobody reads the logits
        found, expected = found[inputs["mask"]], expected[inputs["mask"]]
    assert relative_error(found, expected) < 1e-4
