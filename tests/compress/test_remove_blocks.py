# SPDX-License-Identifier: Apache-2.0
"""Whole blocks removed: which can go, in which order, and what is left runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.compress import Context, RemoveBlocks, apply
from efficient_layers.compress.block_scores import block_scores
from efficient_layers.compress.residual import residual_blocks
from tests.compress.test_apply import logits, reloaded
from tests.models.case import all_cases

CASES = {case.id: case for case in all_cases()}
X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


class Block(nnx.Module):
    """x + f(x), f a matrix."""

    def __init__(self, scale=1.0):
        self.inner = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
        self.inner.kernel.set_value(scale * jnp.eye(4))

    def __call__(self, x, mask=None, *, rngs=None):
        return x + self.inner(x)

    def reset(self):
        """A method that an Identity has not."""


class Net(nnx.Module):
    """Three blocks that scale by 2, 1.5 and -3, and a sum."""

    def __init__(self, *others):
        self.blocks = nnx.List([Block(1.0), Block(0.5), Block(-4.0), *others])

    def __call__(self, x):
        for block in self.blocks:
            x = block(x, None, rngs=None)
        return x


def loss(model, batch):
    return model(batch).sum()


def scores(criterion, data=(X,)):
    context = Context(Net(), (), X, list(data), loss)
    return list(block_scores(criterion, context, [f"blocks/{i}" for i in range(3)]).values())


def test_scores_by_hand():
    """y = -9 x: a block of scale s alone removed makes it -9 / s; d / dg of (1 + g (s - 1))."""
    total = float(X.sum())
    np.testing.assert_allclose(scores("similarity"), [0, 0, 2], atol=1e-6)
    np.testing.assert_allclose(scores("loss"), [total * (9 - 9 / s) for s in (2, 1.5, -3)], 1e-4)
    wanted = [(total * -9 * (s - 1) / s) ** 2 for s in (2, 1.5, -3)]
    np.testing.assert_allclose(scores("taylor"), wanted, 1e-4)
    assert scores("last") == [2, 1, 0]
    halves = scores("taylor", data=[X[:1], X[1:]])
    parts = [(float(x.sum()) * -9 * (2 - 1) / 2) ** 2 for x in (X[:1], X[1:])]
    assert halves[0] == pytest.approx(np.mean(parts), rel=1e-4)


def test_the_least_important_blocks_become_identities():
    small, log = apply(
        Net(), RemoveBlocks("blocks/*", count=1, criterion="loss"), example=X, data=[X], loss=loss
    )
    order = np.argsort(scores("loss"))
    kinds = [type(block).__name__ for block in small.blocks]
    assert kinds == ["Identity" if i == order[0] else "Block" for i in range(3)]
    np.testing.assert_allclose(small(X), -9 * X / (2, 1.5, -3)[order[0]], rtol=1e-5)
    assert log.after.params == 2 * 20
    rows = {row.path: row.why for row in log.rows}
    assert "removed: loss" in rows[f"blocks/{order[0]}"]
    assert "its methods are gone: reset" in rows[f"blocks/{order[0]}"]
    assert "kept: loss" in rows[f"blocks/{order[1]}"]
    assert "2. of 3" in rows[f"blocks/{order[1]}"]


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"count": 2}, 1),
        ({"ratio": 0.7}, 1),
        ({"ratio": 0.01}, 2),
        ({"params": 0.7}, 2),
        ({"macs": 20}, 1),
        ({"bytes": 1000}, 3),
    ],
)
def test_how_many_go(settings, left):
    small, _ = apply(Net(), RemoveBlocks("blocks/*", criterion="last", **settings), example=X)
    kinds = [type(block).__name__ for block in small.blocks]
    assert kinds == ["Block"] * left + ["Identity"] * (3 - left)


@pytest.mark.slow  # a real clock; the search itself is tested with a made-up one
def test_a_latency_is_measured():
    """A share that removing one of two equal, heavy blocks gives for sure."""

    class Heavy(nnx.Module):
        def __init__(self):
            self.inner = nnx.Linear(512, 512, rngs=nnx.Rngs(0))

        def __call__(self, x):
            for _ in range(6):
                x = x + jnp.tanh(self.inner(x))
            return x

    model = nnx.Sequential(Heavy(), Heavy())
    step = RemoveBlocks("layers/*", latency_ms=0.8, criterion="last")
    small, _ = apply(model, step, example=jnp.ones((256, 512)))
    assert isinstance(small.layers[1], el.layers.Identity)


class Kinds(nnx.Module):
    """One module of each kind that is no block, called by name."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.wide = nnx.Linear(4, 8, rngs=rngs)
        self.pair, self.twice, self.keyword = Pair(), Block(), Keyword()
        self.gate, self.unused, self.outer = Gate(), Block(), nnx.Sequential(Block(), Block())
        self.stacked = Stacked()
        self.good, self.post = Block(), Post()

    def __call__(self, x):
        x = self.norm(self.linear(x))
        x = self.wide(x)[:, :4]
        x, _ = self.pair(x)
        x = self.twice(self.twice(x))
        x = self.gate(self.keyword(h=x))
        return self.post(self.good(x=self.stacked(self.outer(x))))


class Pair(Block):
    def __call__(self, x):
        return super().__call__(x), None


class Keyword(Block):
    def __call__(self, h):
        return super().__call__(h)


class Gate(Block):
    def __call__(self, x):
        return x * jax.nn.sigmoid(self.inner(x)) + 1


class Post(Block):
    """relu(norm(x + f(x))), as in BERT and in ResNet."""

    def __call__(self, x):
        y = jax.jit(super().__call__)(x)
        return jax.nn.relu(y / jnp.linalg.norm(y, axis=-1, keepdims=True))


class Stacked(nnx.Module):
    def __init__(self):
        self.block = Block()

    def __call__(self, x):
        graphdef, state = nnx.split(self.block)

        def body(x, _):
            return nnx.merge(graphdef, state, copy=True)(x), None

        return jax.lax.scan(body, x, None, length=3)[0]


def test_which_modules_are_blocks():
    paths = ["linear", "norm", "wide", "pair", "twice", "keyword", "gate", "unused", "outer"]
    paths += ["outer/layers/0", "stacked/block", "good", "post", "post/inner"]
    free, reasons = residual_blocks(Kinds(), paths, X)
    assert free == ["outer", "good", "post"]
    assert reasons == {
        "linear": "its output is not its input and something more",
        "norm": "its output is not its input and something more",
        "wide": "it changes the shape, (3, 4) to (3, 8)",
        "pair": "it returns a tuple, where an Identity returns an array",
        "twice": "it is called 2 times: its weights are shared",
        "keyword": "it is not called with an array first (or as x)",
        "gate": "its output is not its input and something more",
        "unused": "it is not called",
        "outer/layers/0": "inside outer, which can go whole",
        "stacked/block": "it runs in a loop or a branch",
        "post/inner": "its output is not its input and something more",
    }


def drawn(case):
    return el.models.create(case.family, **case.fields, rngs=nnx.Rngs(0))


# Case -> blocks of it that can go; of BERT's the last computes one token alone.
BLOCKS = {"vit": 2, "decoder": 2, "bert": 2}
MORE = ["gpt2", "decoder-gated-linear", "resnet-bottleneck", "convnext", "mlp_mixer", "distilbert"]
MORE += ["mobilebert", "mobilenet_v2", "mobilenet_v3", "efficientnet"]


@pytest.mark.parametrize(
    "name", [*BLOCKS, *(pytest.param(c, marks=pytest.mark.slow) for c in MORE)]
)
def test_families(name):
    """One block goes; the rest runs, with `out` and without, and is rebuilt from the edits."""
    case = CASES[name]
    x, model = case.inputs(), drawn(case)
    model.eval()
    step = RemoveBlocks("blocks/*", count=1, criterion="similarity")
    small, log = apply(model, step, example=x, data=[x])
    gone = [row.path for row in log.touched()]
    assert len(gone) == 1
    if name in BLOCKS:
        assert sum("similarity" in row.why for row in log.rows) == BLOCKS[name]
    tokens = x["x"] if isinstance(x, dict) else x
    given = {} if not isinstance(x, dict) else {k: v for k, v in x.items() if k != "x"}
    out = {}
    named = small(tokens, **given, out=out)
    np.testing.assert_allclose(small(tokens, **given), named, atol=1e-5)
    assert named.shape == case.logits
    assert gone[0] in out

    def base():
        made = drawn(case)
        made.eval()
        return made

    if not given:
        again = reloaded(base, small, log.edits)
        np.testing.assert_array_equal(logits(again, x), logits(small, x))


@pytest.mark.parametrize(
    "name", ["gpt2", pytest.param("decoder-gated-linear", marks=pytest.mark.slow)]
)
def test_what_is_left_decodes(name):
    """Cached, token by token, as on all tokens at once."""
    case = CASES[name]
    x = case.inputs()
    model = drawn(case)
    model.eval()
    step = RemoveBlocks("blocks/*", count=1, criterion="last")
    small, log = apply(model, step, example=x)
    assert "methods are gone" not in str(log)
    cache = small.init_cache(x.shape[0], 16)
    first, cache = small.decode(x[:, :3], cache)
    rest, _ = small.decode(x[:, 3:], cache)
    whole = small(x)
    np.testing.assert_allclose(jnp.concatenate([first, rest], 1), whole, atol=2e-5)
    new = el.models.generate(small, x[:, :3], 4)
    assert new.shape[0] == x.shape[0]


def test_refusals():
    step = RemoveBlocks("blocks/*", count=4, criterion="last")
    with pytest.raises(ValueError, match="3 of the matched modules can go, no more"):
        apply(Net(), step, example=X)
    with pytest.raises(ValueError, match=r"no matched module is a block .*blocks/0/inner: its out"):
        apply(Net(), RemoveBlocks("**/inner", count=1, criterion="last"), example=X)
    with pytest.raises(ValueError, match=r"params cannot fall from 60 to 1. The best .* is 40"):
        apply(Net(), RemoveBlocks("blocks/0", params=1, criterion="last"), example=X)
    with pytest.raises(ValueError, match="needs data="):
        apply(Net(), RemoveBlocks("blocks/*", count=1), example=X)
    with pytest.raises(ValueError, match=r"needs loss="):
        apply(Net(), RemoveBlocks("blocks/*", count=1, criterion="taylor"), example=X, data=[X])
    with pytest.raises(ValueError, match="similarity: `data` holds no batch"):
        apply(Net(), RemoveBlocks("blocks/*", count=1), example=X, data=[])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "one of them. Got {}"),
        ({"count": 1, "ratio": 0.5}, "one of them"),
        ({"count": 0}, "positive count"),
        ({"count": 1.5}, "a whole number"),
        ({"ratio": 1.5}, "ratio of at most 1"),
        ({"latency_ms": -1}, "positive count"),
        ({"count": 1, "criterion": "best"}, "criterion of similarity, taylor, loss, last"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        RemoveBlocks("blocks/*", **settings)
