# SPDX-License-Identifier: Apache-2.0
"""The recurrent baseline: token by token as at once, padding not seen, torch's layers, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from tests.models.cases.seq2seq import SMALL
from tests.models.published import load, relative_error

SOURCE = jnp.asarray([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]], jnp.int32)
TARGET = jnp.asarray([[1, 2, 3, 4], [1, 9, 8, 7]], jnp.int32)
MASK = jnp.arange(6) < jnp.asarray([[4], [6]])


def create(cell):
    model = el.models.create("seq2seq", rngs=nnx.Rngs(0), cell=cell, **SMALL)
    model.eval()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_token_by_token_padding_and_generation(cell):
    model = create(cell)
    logits = model(SOURCE, TARGET, mask=MASK)
    np.testing.assert_allclose(logits[:1], model(SOURCE[:1, :4], TARGET[:1]), atol=1e-5)
    memory = model.encode(SOURCE, MASK)
    for at in range(4):
        y, memory = model.decode(TARGET[:, at : at + 1], memory)
        np.testing.assert_allclose(y[:, 0], logits[:, at], atol=1e-5)
    found = np.asarray(el.models.generate(model, TARGET[:, :1], 5, source=(SOURCE, MASK)))
    for at in range(1, 6):
        expected = jnp.argmax(model(SOURCE, jnp.asarray(found[:, :at]), mask=MASK)[:, -1], -1)
        assert np.array_equal(found[:, at], expected)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_logits_equal_torch(cell):
    """torch's stacked recurrent layers with our weights, and Luong's equations written out."""
    torch = load("torch")
    model = create(cell)
    kind = getattr(torch.nn, cell.upper())

    def tensor(variable):
        return torch.from_numpy(np.array(variable[...]))

    def stacked(layers):
        module = kind(8, 8, num_layers=len(layers), batch_first=True)
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        module.load_state_dict(
            {
                name.replace("l0", f"l{i}"): tensor(getattr(layer, name))
                for i, layer in enumerate(layers)
                for name in names
            }
        )
        return module

    with torch.inference_mode():
        source = tensor(model.source_embedding.embedding)[np.array(SOURCE)]
        ends, y = [], source
        for layer in model.encoder:
            y, _ = stacked([layer])(y)
            ends.append(y[:, -1])
        starts = [
            torch.tanh(end @ tensor(bridge.kernel) + tensor(bridge.bias))
            for end, bridge in zip(ends, model.bridges, strict=True)
        ]
        start = torch.stack(starts)
        state = (start[..., :8].contiguous(), start[..., 8:].contiguous())
        target = tensor(model.embedding.embedding)[np.array(TARGET)]
        h, _ = stacked(model.decoder)(target, state if cell == "lstm" else start)
        weights = torch.softmax(h @ tensor(model.score.kernel) @ y.mT, -1)
        features = torch.tanh(torch.cat([weights @ y, h], -1) @ tensor(model.combine.kernel))
        expected = features @ tensor(model.head.kernel) + tensor(model.head.bias)
    assert relative_error(model(SOURCE, TARGET), expected) < 1e-4


@pytest.mark.fast
def test_bad_input():
    model = nnx.eval_shape(lambda: el.models.create("seq2seq", rngs=nnx.Rngs(0), **SMALL))
    with pytest.raises(ValueError, match=r"sources of shape \(batch, n >= 1\)"):
        jax.eval_shape(lambda: model.encode(SOURCE, MASK[:1]))
    with pytest.raises(ValueError, match=r"no cell 'lsm'. Did you mean 'lstm'"):
        el.models.create("seq2seq", cell="lsm", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="encode and decode and a source"):
        el.models.generate(model, TARGET, 2)
