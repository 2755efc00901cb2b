# SPDX-License-Identifier: Apache-2.0
"""apply, rebuild and the log: nothing of the caller's is changed, edits give the structure back."""

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, layers
from efficient_layers.compress.edits import assign, replace, resize

X = jax.random.normal(jax.random.key(1), (4, 8))


class Net(nnx.Module):
    """Two blocks in a list, a layer used under two names, dropout for a mode."""

    def __init__(self, rngs: nnx.Rngs):
        self.blocks = nnx.List([nnx.Linear(8, 8, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(8, 6, rngs=rngs)
        self.reused = self.blocks[0]
        self.drop = nnx.Dropout(0.5, deterministic=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in [*self.blocks, self.reused]:
            x = jax.nn.relu(block(x))
        return self.head(self.drop(x))


@dataclasses.dataclass(frozen=True)
class Narrow(compress.Technique):
    """Keeps the first outputs of a linear layer: a resize, an attribute, values."""

    keep: int = 2

    def plan(self, context):
        for path, module in context.matched:
            if isinstance(module, nnx.Linear):
                edits = (
                    resize(f"{path}/kernel", (module.in_features, self.keep)),
                    resize(f"{path}/bias", (self.keep,)),
                    assign(path, out_features=self.keep),
                )
                values = {
                    f"{path}/kernel": module.kernel[...][:, : self.keep],
                    f"{path}/bias": module.bias[...][: self.keep],
                }
                yield compress.Change(path, f"{self.keep} outputs", edits, values)


def net() -> Net:
    return Net(nnx.Rngs(0))


def same(first: nnx.Module, second: nnx.Module) -> None:
    """Bit-equal state, equal static structure."""
    (graph_1, state_1), (graph_2, state_2) = nnx.split(first), nnx.split(second)
    assert graph_1 == graph_2
    for one, two in zip(jax.tree.leaves(state_1), jax.tree.leaves(state_2), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, two = jax.random.key_data(one), jax.random.key_data(two)
        np.testing.assert_array_equal(one, two)


def reloaded(base, small: nnx.Module, edits: list) -> nnx.Module:
    """`small` as a new process sees it: the abstract base, edits from JSON, a filled state."""
    empty = compress.rebuild(nnx.eval_shape(base), json.loads(json.dumps(edits)))
    graphdef, expected = nnx.split(empty)
    got_graphdef, state = nnx.split(small)
    assert graphdef == got_graphdef
    shapes = jax.tree.map(lambda v: (v.shape, v.dtype), nnx.to_pure_dict(expected))
    assert shapes == jax.tree.map(lambda v: (v.shape, v.dtype), nnx.to_pure_dict(state))
    return nnx.merge(graphdef, state, copy=True)


@functools.cache
def _drawn(cls) -> tuple:
    def draw():
        return nnx.split(cls(nnx.Rngs(0)))

    with jax.ensure_compile_time_eval():  # also where the caller asks for shapes alone
        return jax.jit(draw, compiler_options={"xla_backend_optimization_level": 0})()


def made(cls) -> Any:
    """`cls(nnx.Rngs(0))`, its weights drawn by one program, once."""
    return nnx.merge(*_drawn(cls), copy=True)


def logits(model: nnx.Module, x) -> np.ndarray:
    """`model(x)`, compiled once and fast."""
    graphdef, state = nnx.split(model)

    def run(state, x):
        return nnx.merge(graphdef, state, copy=True)(x)

    options = {"xla_backend_optimization_level": 0}
    return np.asarray(jax.jit(run, compiler_options=options)(state, x))


STEPS = [[compress.LowRank("blocks/*", rank=2)], Narrow("head", keep=3)]


def test_apply_leaves_the_model_and_its_mode():
    model = net()
    small, log = compress.apply(model, STEPS)
    same(model, net())
    assert not model.drop.deterministic
    assert not small.drop.deterministic
    assert isinstance(small.blocks[0], layers.LowRankLinear)
    assert small.reused is small.blocks[0]
    assert log.before.params == 2 * 72 + 54
    assert log.after.params == 2 * (32 + 8) + 27


def test_edits_rebuild_the_structure_and_logits_are_bit_equal():
    for mode in ("train", "eval"):

        def base(mode=mode):
            model = net()
            getattr(model, mode)()
            return model

        small, log = compress.apply(base(), STEPS)
        again = reloaded(base, small, log.edits)
        again.eval()
        small.eval()
        np.testing.assert_array_equal(logits(again, X), logits(small, X))


def test_log_has_a_row_a_module_and_is_json():
    _, log = compress.apply(net(), [compress.LowRank("**", rank=2), Narrow("head", keep=3)])
    assert [(row.path, row.touched) for row in log.rows] == [
        ("blocks/0", True),
        ("blocks/1", True),
        ("head", True),
        ("head", False),
    ]
    assert log.rows[3].why == "Narrow takes no LowRankLinear"
    assert log.rows[2].before.params == 54
    assert log.rows[2].after.params == 2 * (8 + 6) + 6
    back = json.loads(json.dumps(log.to_json()))
    assert back["edits"] == log.edits
    assert 'LowRank("' not in str(log)
    assert "LowRank('**', rank=2)" in str(log)
    assert "params 54 -> 34" in str(log)


def test_type_narrows_and_the_first_rule_wins():
    steps = [compress.LowRank("head", rank=1), compress.LowRank("**", rank=2, type="Linear")]
    small, _ = compress.apply(net(), steps)
    assert (small.head.rank, small.blocks[1].rank) == (1, 2)
    with pytest.raises(ValueError, match="the first matching step of a technique wins"):
        compress.apply(net(), [compress.LowRank("**", rank=1), compress.LowRank("head", rank=2)])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (compress.LowRank("haed", rank=1), "Did you mean 'head'"),
        (compress.LowRank("**", rank=1, type=nnx.Conv), "No module of type"),
        (compress.FoldBatchNorm(), r"FoldBatchNorm\('\*\*'\) needs example="),
    ],
)
def test_errors_before_work_starts(step, message):
    with pytest.raises(ValueError, match=message):
        compress.apply(net(), [step])


def test_other_bad_input():
    with pytest.raises(TypeError, match="apply expects steps"):
        compress.apply(net(), ["LowRank"])
    with pytest.raises(ValueError, match="does not fit this Net"):
        compress.rebuild(net(), [replace("tail", "Identity")])
    with pytest.raises(ValueError, match=r"no layer 'os\.system'"):
        compress.rebuild(net(), [replace("head", "os.system")])
    with pytest.raises(ValueError, match="op is one of"):
        compress.rebuild(net(), [{"op": "run", "path": "head"}])
    with pytest.raises(ValueError, match="an attribute 'colour'"):
        compress.rebuild(net(), [assign("head", colour=1)])
    with pytest.raises(TypeError, match="so that JSON can"):
        replace("head", "Identity", act=jax.nn.relu)


def test_macs_are_counted_on_an_example():
    _, log = compress.apply(net(), compress.LowRank("blocks/*", rank=2), example=X)
    assert log.macs_before == 3 * 64 + 48
    assert log.macs_after == 3 * 32 + 48
    assert "MACs 240 -> 144 (1.67x fewer)" in str(log)


def test_a_model_that_needs_what_was_replaced_is_named():
    class Peeks(nnx.Module):
        def __init__(self):
            self.a = nnx.Linear(8, 8, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return x @ self.a.kernel[...]

    with pytest.raises(AttributeError) as caught:
        compress.apply(Peeks(), compress.LowRank("a", rank=2), example=X)
    assert "LowRank('a', rank=2) the model does not run" in caught.value.__notes__[-1]


def test_values_have_to_fit():
    @dataclasses.dataclass(frozen=True)
    class Wrong(compress.Technique):
        values: tuple = ()

        def plan(self, context):
            edits = (resize("head/kernel", (8, 2)),)
            yield compress.Change("head", "", edits, dict(self.values))

    with pytest.raises(ValueError, match="no values: head/kernel"):
        compress.apply(net(), Wrong("head"))
    with pytest.raises(ValueError, match=r"has the shape \(8, 2\)"):
        compress.apply(net(), Wrong("head", (("head/kernel", jnp.ones((8, 3))),)))
