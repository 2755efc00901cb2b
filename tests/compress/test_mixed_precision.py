# SPDX-License-Identifier: Apache-2.0
"""MixedPrecision: the greedy choice against all assignments, sensitivities against NumPy."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from efficient_layers import compress, layers
from efficient_layers.compress.assignment import Choice, assign
from efficient_layers.compress.log import Size
from efficient_layers.data import digits
from tests.compress.test_apply import logits, reloaded

RNG = np.random.default_rng(0)
ALL = compress.Quantize("**", keep_ends=False)


def best(choices: dict, budget: int) -> tuple[float, dict]:
    """The least harm over all assignments."""
    paths = list(choices)
    found = []
    for bits in itertools.product(*(choices[p] for p in paths)):
        picked = [choices[p][b] for p, b in zip(paths, bits, strict=True)]
        if sum(c.bytes for c in picked) <= budget:
            found.append((sum(c.harm for c in picked), dict(zip(paths, bits, strict=True))))
    return min(found, key=lambda pair: pair[0])


def harm(choices: dict, chosen: dict) -> float:
    return sum(choices[path][bits].harm for path, bits in chosen.items())


def drawn_choices(rng: np.random.Generator) -> dict:
    """3 layers x 3 bits; each bit less makes 4 times the squared error."""
    choices = {}
    for path in "abc":
        weights, harm = int(rng.integers(10, 1000)) * 8, float(np.exp(2 * rng.normal()))
        choices[path] = {b: Choice(weights * b // 8, harm * 4.0**-b) for b in (2, 4, 8)}
    return choices


def test_greedy_against_all_assignments():
    """Mostly the best; never worse than the best of a budget that is one layer's move smaller."""
    exact = 0
    for seed in range(40):
        choices = drawn_choices(np.random.default_rng(seed))
        most = sum(c[8].bytes for c in choices.values())
        move = max(c[8].bytes - c[2].bytes for c in choices.values())
        for share in (0.3, 0.4, 0.6, 0.8, 1.0):
            budget = share * most
            chosen = assign(choices, budget)
            assert sum(choices[p][b].bytes for p, b in chosen.items()) <= budget
            least, _ = best(choices, budget)
            exact += harm(choices, chosen) <= least * (1 + 1e-9)
            if budget - move >= most / 4:  # at 2 bits
                assert harm(choices, chosen) <= best(choices, budget - move)[0] * (1 + 1e-9)
    assert exact >= 195, exact  # of 200


def test_assignments_by_hand():
    a = {8: Choice(8, 0.0), 4: Choice(4, 1.0), 3: Choice(4, 0.5)}
    b = {8: Choice(80, 0.0), 4: Choice(40, 2.0)}
    assert assign({"a": a, "b": b}, 100) == {"a": 8, "b": 8}
    assert assign({"a": a, "b": b}, 84) == {"a": 3, "b": 8}  # as small as 4 bits, and better
    assert assign({"a": a, "b": b}, 50) == {"a": 8, "b": 4}  # what is left over goes back
    with pytest.raises(ValueError, match="44 bytes are the fewest"):
        assign({"a": a, "b": b}, 43)


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(11, 8, rngs=rngs)
        self.conv = layers.Conv(8, 8, (3,), rngs=rngs)
        self.low = layers.LowRankLinear(8, 16, rank=4, rngs=rngs)
        self.head = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.conv(self.embed(tokens))).mean(1)
        return self.head(jax.nn.relu(self.low(x)))


TOKENS = np.asarray(RNG.integers(0, 11, (6, 9)), np.int32)
LABELS = np.asarray(RNG.integers(0, 4, 6), np.int32)


def net() -> nnx.Module:
    model = Net(nnx.Rngs(0))
    model.eval()
    return model


def loss(model, batch):
    x, labels = batch
    return -jnp.take_along_axis(jax.nn.log_softmax(model(x)), labels[:, None], 1).mean()


def rounded_to(w: np.ndarray, bits: int) -> np.ndarray:
    top = 2 ** (bits - 1) - 1
    scale = np.abs(w).max(0) / top
    return np.round(w / scale) * scale


def test_sensitivity_against_numpy():
    rng = np.random.default_rng(0)
    model = nnx.Sequential(*(nnx.Linear(6, 6, rngs=nnx.Rngs(i)) for i in range(3)))
    x = rng.normal(size=(20, 6)).astype(np.float32)
    weights = [np.asarray(layer.kernel[...], np.float64) for layer in model.layers]
    whole = Size.of(model).bytes
    step = compress.MixedPrecision("layers/*", bytes=int(whole * 0.45), like=ALL)
    _, log = compress.apply(model, step, data=[x[:10], x[10:]])

    def output(weights):
        return x @ weights[0] @ weights[1] @ weights[2]

    choices = {}
    for number, weight in enumerate(weights):
        choices[f"layers/{number}"] = {}
        for bits in (2, 4, 8):
            changed = [*weights]
            changed[number] = rounded_to(weight, bits)
            off = np.square(output(changed) - output(weights)).sum()
            share = off / np.square(output(weights)).sum()
            # Codes, a scale a channel, a bias.
            choices[f"layers/{number}"][bits] = Choice(36 * bits // 8 + 24 + 24, share)
    for row in log.rows:
        harms = ", ".join(f"{b}: {c.harm:.2g}" for b, c in choices[row.path].items())
        assert row.why.endswith(f"(error at {harms})")
    chosen = {row.path: int(row.why.split()[0]) for row in log.rows}
    assert chosen == best(choices, int(whole * 0.45))[1]


@pytest.mark.parametrize("criterion", ["error", "loss"])
def test_every_kind_of_layer_under_a_budget(criterion):
    model = net()
    step = compress.MixedPrecision("**", bytes=0.53, criterion=criterion)
    given = {"example": TOKENS[:1], "data": [(TOKENS, LABELS)], "loss": loss}
    small, log = compress.apply(model, step, **given)
    assert log.after.bytes <= 0.53 * log.before.bytes
    skipped = {row.path: row.why for row in log.skipped()}
    assert set(skipped) == {"embed", "head"}  # first and last
    touched = {row.path: row.why for row in log.touched()}
    assert set(touched) == {"conv", "low"}
    assert f"({criterion} at 2: " in touched["conv"]
    again = reloaded(net, small, log.edits)
    np.testing.assert_array_equal(logits(again, TOKENS), logits(small, TOKENS))


def test_embeddings_have_fewer_choices_and_like_is_kept():
    like = compress.Quantize("**", symmetric=True, activations="dynamic", keep_ends=False)
    step = compress.MixedPrecision("**", bits=(2, 4, 8), bytes=0.4, like=like)
    small, log = compress.apply(net(), step, data=[TOKENS])
    assert isinstance(small.embed, layers.IntEmbedding)
    assert "error at 4: " in next(row.why for row in log.rows if row.path == "embed")
    assert small.head.spec.activations == "dynamic"


@pytest.mark.slow
def test_digits_between_two_and_four_bits():
    """Well above 2 bits everywhere, in fewer bytes than 4 bits everywhere."""
    everything = digits.arrays()
    held_out = np.arange(len(everything)) % 5 == 0
    images, labels = everything.arrays["image"].reshape(-1, 64), everything.arrays["label"]
    train = jnp.asarray(images[~held_out]), jnp.asarray(labels[~held_out])
    sizes = (64, 128, 128, 128, 10)
    rngs, parts = nnx.Rngs(0), []
    for n, m in itertools.pairwise(sizes):
        parts += [nnx.Linear(n, m, rngs=rngs), jax.nn.relu]
    graphdef, params = nnx.split(nnx.Sequential(*parts[:-1]))
    tx = optax.adam(2e-3)

    def cross_entropy(params):
        logits = nnx.merge(graphdef, params, copy=True)(train[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, train[1]).mean()

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(cross_entropy)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(250):
        params, state = step(params, state)
    model = nnx.merge(graphdef, params)

    def accuracy(model) -> float:
        return float((logits(model, images[held_out]).argmax(-1) == labels[held_out]).mean())

    mixed = compress.MixedPrecision("**", bytes=0.12, like=ALL)
    steps = (dataclasses.replace(ALL, bits=2), mixed, dataclasses.replace(ALL, bits=4))
    made = [compress.apply(model, s, data=[train[0][:256]], example=train[0][:1]) for s in steps]
    two, between, four = (accuracy(small) for small, _ in made)
    assert made[1][1].after.bytes < made[2][1].after.bytes
    assert two + 0.05 < between <= four + 0.02


def test_refusals():
    mixed = compress.MixedPrecision
    with pytest.raises(ValueError, match="2 bit-widths or more"):
        mixed(bits=(4,), path="**")
    with pytest.raises(ValueError, match="bytes above 0"):
        mixed("**", bytes=0)
    with pytest.raises(ValueError, match="criterion of"):
        mixed("**", criterion="hessian")
    with pytest.raises(ValueError, match="expects bits from 2 to 8"):
        mixed("**", bits=(1, 4))
    with pytest.raises(ValueError, match='mode="ptq"'):
        mixed("**", like=compress.Quantize("**", mode="qat"))
    given = {"example": TOKENS[:1], "data": [TOKENS]}
    with pytest.raises(ValueError, match="needs loss="):
        compress.apply(net(), mixed("**", criterion="loss"), **given)
    with pytest.raises(ValueError, match=r"cannot reach 100 of .* bytes: the fewest bits"):
        compress.apply(net(), mixed("**", bytes=100), **given)
    with pytest.raises(ValueError, match="at least one batch"):
        compress.apply(net(), mixed("**"), example=TOKENS[:1], data=[])
