# SPDX-License-Identifier: Apache-2.0
"""Share: ties of a stack's modules, counted and trained once; hashing by loops; refusals."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from efficient_layers import layers, measure, models, train
from efficient_layers.compress import LowRank, Quantize, Share, apply, rebuild
from efficient_layers.compress.edits import tie
from efficient_layers.measure.view import call
from tests.compress.test_apply import logits, made, reloaded, same
from tests.layers.cases.hashed_linear import place
from tests.models.case import all_cases

X = jax.random.normal(jax.random.key(1), (4, 8))


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, *, hidden: int = 12):
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.up = nnx.Linear(8, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, 8, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.down(jax.nn.relu(self.up(self.norm(x))))


BLOCK = 16 + 8 * 12 + 12 + 12 * 8 + 8


class Stack(nnx.Module):
    """Twelve blocks, so that 10 and 11 come after 2; the last one has a second name."""

    depth = 12

    def __init__(self, rngs: nnx.Rngs):
        self.blocks = nnx.List([Block(rngs) for _ in range(self.depth)])
        self.head = nnx.Linear(8, 6, rngs=rngs)
        self.last = self.blocks[-1]

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def places(model: nnx.Module) -> list[int]:
    """Which block stands in each place."""
    known = {id(block): i for i, block in reversed(list(enumerate(model.blocks)))}
    return [known[id(block)] for block in model.blocks]


@pytest.mark.parametrize(
    ("groups", "pattern", "expected"),
    [
        (1, "consecutive", [0] * 12),
        (3, "consecutive", [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8]),
        (3, "cycle", [0, 1, 2] * 4),
        (5, "consecutive", [0, 0, 0, 3, 3, 5, 5, 5, 8, 8, 10, 10]),
    ],
)
def test_which_block_stands_where(groups, pattern, expected):
    model = made(Stack)
    small, log = apply(model, [Share("blocks/*", groups=groups, pattern=pattern)], example=X)
    assert places(small) == expected
    assert small.last is small.blocks[-1]  # a second name of a block goes with it
    for i, first in enumerate(expected):
        same(small.blocks[i], model.blocks[first])
    assert log.before.params == 12 * BLOCK + 54
    assert log.after.params == groups * BLOCK + 54
    assert log.after.bytes == 4 * log.after.params
    assert log.macs_after == log.macs_before == 12 * 2 * 96 + 48
    assert places(model) == list(range(12))


def test_equal_blocks_are_shared_without_a_change_of_any_output():
    model = made(Stack)
    for block in model.blocks:
        nnx.update(block, nnx.state(model.blocks[0]))
    for combine in ("first", "mean"):
        small, _ = apply(model, [Share("blocks/*", groups=2, combine=combine)])
        np.testing.assert_array_equal(logits(small, X), logits(model, X))


def test_the_way_back_and_rows():
    small, log = apply(made(Stack), [Share("blocks/*", groups=2, combine="mean")])
    again = reloaded(lambda: Stack(nnx.Rngs(0)), small, log.edits)
    assert places(again) == places(small)
    np.testing.assert_array_equal(logits(again, X), logits(small, X))
    rows = {row.path: row for row in log.rows}
    assert rows["blocks/0"].why == "the mean of 6 modules"
    assert rows["blocks/0"].after.params == BLOCK
    assert rows["blocks/1"].why == "is blocks/0"
    assert rows["blocks/1"].after.params == 0
    kernels = [block.up.kernel[...] for block in made(Stack).blocks[:6]]
    np.testing.assert_allclose(small.blocks[0].up.kernel[...], np.mean(kernels, axis=0), atol=1e-7)


def test_weights_are_split_counted_and_trained_once():
    small, _ = apply(made(Stack), [Share("blocks/*", groups=2)])
    graphdef, params, rest = train.split(small)
    assert sum(value.size for value in params.values()) == 2 * BLOCK + 54
    assert places(train.merge(graphdef, params, rest)) == [0] * 6 + [6] * 6
    cost = measure.cost(small, X)
    assert (cost.params, cost.macs) == (2 * BLOCK + 54, 12 * 2 * 96 + 48)

    def loss(params):
        return (train.merge(graphdef, params, rest)(X) ** 2).sum()

    one, _ = apply(made(Stack), [Share("blocks/*", groups=1)])
    graphdef, params, rest = train.split(one)
    got = jax.jit(jax.grad(loss))(params)["blocks/0/down/bias"]
    copies = made(Stack)  # the same weights, not shared: the sum over the depths
    for block in copies.blocks:
        nnx.update(block, nnx.state(one.blocks[0]))
    graphdef, params, rest = train.split(copies)
    each = jax.jit(jax.grad(loss))(params)
    total = sum(each[f"blocks/{i}/down/bias"] for i in range(12))
    np.testing.assert_allclose(got, total, rtol=2e-4)


def test_it_trains_in_the_ordinary_loop_and_is_compressed_again(tmp_path):
    small, log = apply(made(Stack), [Share("blocks/*", groups=2), Quantize("head", bits=8)])

    def objective(model, batch, rngs):
        return ((model(batch["x"]) - batch["y"]) ** 2).mean(), {}

    graphdef, params, rest = train.split(small)
    tx = optax.sgd(0.01)
    step = jax.jit(train.step(objective, tx, graphdef, guard=train.Guard("off")))
    state = train.TrainState.create(params, rest, tx)
    losses = []
    for _ in range(3):
        state, metrics = step(state, {"x": X, "y": jnp.zeros((4, 6))}, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    with train.Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"params": state.params, "rest": state.rest}, {}, force=True)
    empty = rebuild(nnx.eval_shape(lambda: Stack(nnx.Rngs(0))), log.edits)
    graphdef, params, rest = train.split(empty)  # type: ignore[arg-type]
    with train.Checkpointer(tmp_path) as checkpointer:
        like = jax.tree.map(jnp.zeros_like, {"params": state.params, "rest": state.rest})
        _, loaded, _ = checkpointer.restore(like)
    again = train.merge(graphdef, loaded["params"], loaded["rest"])
    now = train.merge(graphdef, state.params, state.rest)
    assert places(again) == places(now) == places(small)
    np.testing.assert_array_equal(logits(again, X), logits(now, X))

    smaller, _ = apply(small, [Quantize("blocks/*/up", bits=8, keep_ends=False)])
    assert isinstance(smaller.blocks[5].up, layers.IntLinear)
    assert smaller.blocks[5] is smaller.blocks[0]


def test_parts_can_be_shared_and_replaced_in_all_their_places():
    steps = [Share("blocks/*/up", groups=1), LowRank("blocks/0/up", rank=2)]
    small, log = apply(made(Stack), steps)
    for model in (small, reloaded(lambda: Stack(nnx.Rngs(0)), small, log.edits)):
        assert isinstance(model.blocks[7].up, layers.LowRankLinear)
        assert model.blocks[7].up is model.blocks[0].up
        assert model.blocks[7].down is not model.blocks[0].down


def test_what_is_skipped_says_why():
    def why(model, step):
        _, log = apply(model, [step])
        return {row.path: row.why for row in log.skipped()}, len(log.edits)

    model = made(Stack)
    model.blocks[3] = Block(nnx.Rngs(0), hidden=13)
    skipped, edits = why(model, Share("blocks/*", groups=1))
    assert skipped == {"blocks/3": "not as blocks/0: down/kernel is (13, 8), not (12, 8)"}
    assert edits == 10

    skipped, _ = why(made(Stack), Share("blocks/**", groups=1))
    assert skipped["blocks/0/up"] == "inside blocks/0, which matches, too"

    model = made(Stack)
    model.blocks[0].extra = nnx.BatchNorm(8, rngs=nnx.Rngs(0))
    skipped, edits = why(model, Share("blocks/?", groups=9))
    assert skipped["blocks/0"].startswith("extra/mean is a BatchStat, which belongs to one depth")
    assert skipped["blocks/1"] == "alone in its group"
    assert edits == 0

    model = made(Stack)
    model.blocks[1] = nnx.Linear(8, 8, rngs=nnx.Rngs(0))
    model.blocks[2].norm.epsilon = 1e-3
    skipped, _ = why(model, Share("blocks/*", groups=1))
    assert skipped["blocks/1"] == "not as blocks/0: Linear, not Block"
    assert skipped["blocks/2"] == "not as blocks/0: norm/epsilon is 0.001, not 1e-06"

    skipped, _ = why(made(Stack), Share("**/norm", method="hash", ratio=2))
    assert skipped["blocks/0/norm"] == "Share takes no LayerNorm"


def test_hashing_is_the_signed_mean_of_each_bucket_by_a_loop():
    model = made(Stack)
    small, log = apply(model, [Share("head", method="hash", ratio=4)])
    kernel = np.asarray(model.head.kernel[...], np.float64)
    seed = small.head.seed
    sums, counts = np.zeros(12), np.zeros(12)
    for i, o in np.ndindex(8, 6):
        bucket, sign = place(i, o, 12, seed)
        sums[bucket] += sign * kernel[i, o]
        counts[bucket] += 1
    expected = np.zeros((8, 6))
    for i, o in np.ndindex(8, 6):
        bucket, sign = place(i, o, 12, seed)
        expected[i, o] = sign * sums[bucket] / counts[bucket]
    np.testing.assert_allclose(small.head.merge().kernel[...], expected, rtol=1e-5)
    kept = np.square(expected).sum() / np.square(kernel).sum()
    assert log.rows[0].why == f"12 buckets keep {kept:.1%} of the energy"
    assert log.after.params - 12 * BLOCK == 12 + 6
    again = reloaded(lambda: Stack(nnx.Rngs(0)), small, log.edits)
    np.testing.assert_array_equal(logits(again, X), logits(small, X))
    both, _ = apply(model, [Share("blocks/0/*", method="hash", ratio=4)])
    assert both.blocks[0].up.seed != both.blocks[0].down.seed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r'method="layers" expects groups= and not ratio='),
        ({"groups": 2, "ratio": 8}, r'method="layers" expects groups= and not ratio='),
        ({"method": "hash", "groups": 2}, r'method="hash" expects ratio= and not groups='),
        ({"method": "hash", "ratio": 1}, r"a ratio above 1\. Got 1\."),
        ({"groups": 0}, r"groups of at least 1\. Got 0\."),
        ({"groups": 2, "pattern": "sandwich"}, r"pattern to be one of .* Got 'sandwich'"),
        ({"groups": 2, "combine": "sum"}, r"combine to be one of .* Got 'sum'"),
        ({"method": "tie", "groups": 2}, r"method to be one of .* Got 'tie'"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Share("blocks/*", **settings)


def test_more_groups_than_modules_and_a_tie_to_a_part():
    with pytest.raises(ValueError, match=r"at least 13 modules of one structure\. Got 12"):
        apply(made(Stack), [Share("blocks/*", groups=13)])
    for path, to in (("blocks/0", "blocks/0/up"), ("blocks/0", "blocks/0")):
        with pytest.raises(ValueError, match="not tied to one inside of it"):
            rebuild(made(Stack), [json.loads(json.dumps(tie(path, to)))])
    with pytest.raises(ValueError, match="does not fit this Stack"):
        rebuild(made(Stack), [tie("blocks/0", "blocks/12")])


def test_where_nothing_can_be_shared_the_log_says_why():
    _, log = apply(made(Stack), [Share("", groups=1)])
    assert [(row.path, row.touched, row.why) for row in log.rows] == [
        ("", False, "the model itself")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vit", "bert", "gpt2", "decoder"])
def test_families_with_equal_blocks_stay_as_they_are(family):
    """Outputs, intermediates, and the tokens that a cache of each depth gives."""
    case = next(case for case in all_cases() if case.id == family)
    model = models.create(case.family, **case.fields, rngs=nnx.Rngs(0))
    model.eval()
    for block in model.blocks:
        nnx.update(block, nnx.state(model.blocks[0]))
    x = case.inputs()
    small, log = apply(model, [Share("blocks/*", groups=1)], example=x)
    assert all(block is small.blocks[0] for block in small.blocks)
    assert log.after.params < log.before.params
    assert log.after.params == measure.cost(small, x).params

    def named(model):
        out = {}
        call(partial(model, out=out), x)
        return out

    jax.tree.map(np.testing.assert_array_equal, named(small), named(model))
    if family in ("gpt2", "decoder"):
        prompt = x["x"] if isinstance(x, dict) else x
        tokens = [models.generate(m, prompt[:, :4], 4) for m in (small, model)]
        np.testing.assert_array_equal(*tokens)
