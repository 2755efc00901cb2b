# SPDX-License-Identifier: Apache-2.0
"""One battery for every layer: each case of `cases/` goes through all of these checks.

What only one layer promises stands in its own test file. Sharding is in `test_sharded.py`.
"""

import dataclasses
import doctest
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core.meta import unbox

from efficient_layers import layers, linen, measure, ops, train
from efficient_layers.train.state import merge, split
from tests.layers.case import QUICKLY, Case, cases, registered
from tests.layers.programs import Program, as_type, cost_formulas, program

CASES = cases()
SEEN: set[type] = set()
FIRST = [c for c in CASES if not (c.layer in SEEN or SEEN.add(c.layer))]  # type: ignore[func-returns-value]
# `make test` runs the checks that compile much for layers with fast paths of their own in `ops/`;
# the others, and further cases, are left to `make battery`.
COMPILED = {
    layers.BatchNorm,
    layers.Conv,
    layers.DepthwiseConv,
    layers.DiagonalSSM,
    layers.Embedding,
    layers.GatedLinearAttention,
    layers.LowRankLinear,
    layers.LSTM,
    layers.MixtureOfExperts,
    layers.MultiHeadAttention,
    layers.QuantLinear,
}
QUICK = [case for case in FIRST if case.layer in COMPILED]


def tiers(chosen: list[Case], quick: list[Case]) -> pytest.MarkDecorator:
    """The check runs for all of `chosen`, in the slow tier where a case is not in `quick`."""
    slow = [pytest.param(case, marks=pytest.mark.slow) for case in chosen if case not in quick]
    return pytest.mark.parametrize("case", [*(c for c in chosen if c in quick), *slow], ids=str)


every = tiers(list(CASES), FIRST)
thoroughly = tiers(list(CASES), QUICK)
a_layer = tiers(FIRST, QUICK)
quickly_compiled = partial(jax.jit, compiler_options=QUICKLY)


@cache
def _prepared(label: str, training: bool) -> Program:
    case = next(case for case in CASES if str(case) == label)
    return program(case, training=training)


def prepared(case: Case, *, training: bool = True) -> Program:
    """Made once for all checks, which leave it as it is."""
    return _prepared(str(case), training)


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Equal trees up to `tolerance` times the largest expected number of each array."""

    def one(got: Any, expected: Any) -> None:
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        scale = max(1.0, np.abs(expected).max(initial=0.0))
        np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=tolerance)

    jax.tree.map(one, got, expected)


def stacked(*trees: Any) -> Any:
    return jax.tree.map(lambda *v: np.stack(v), *trees)


def test_every_layer_has_a_case_an_oracle_and_a_name() -> None:
    assert {case.layer for case in CASES} == set(registered().values())
    without = {c.layer.__name__ for c in CASES} - {c.layer.__name__ for c in CASES if c.oracle}
    assert not without, f"no NumPy oracle for {without}"
    names = [str(case) for case in CASES]
    assert len(set(names)) == len(names)


@every
def test_shape_and_dtype(case: Case) -> None:
    p = prepared(case)
    y = jax.eval_shape(p.y, p.params, case.input())
    assert (y.shape, y.dtype) == (case.y, jnp.float32)
    kept = as_type(p.params, jnp.bfloat16)
    half = p
    if "dtype" in case.signature:
        module = case.abstract(dtype=jnp.bfloat16)
        module.train()
        half = Program(case, *split(module), training=True)
    x = jax.ShapeDtypeStruct(case.x, case.input_dtype(jnp.bfloat16))
    with jax.numpy_dtype_promotion("strict"):  # nothing is promoted unasked
        y, _ = jax.eval_shape(half.run, kept, half.rest, x)
    assert (y.shape, y.dtype) == (case.y, jnp.bfloat16)


@pytest.mark.slow  # an eager call compiles every operation by itself
@every
def test_jit_computes_what_no_jit_computes(case: Case) -> None:
    p, x = prepared(case), case.input()
    y, rest = p.run(p.params, p.rest, jnp.asarray(x))
    # What XLA fuses, it rounds otherwise: BatchNorm of 4 rows, E[x^2] - E[x]^2, differs by 2.5e-6.
    close(jax.jit(p.run)(p.params, p.rest, x), (y, rest), 5e-6)


@tiers([c for c in CASES if c.oracle], FIRST)
def test_oracle(case: Case) -> None:
    module = case.make()
    module.eval()
    x = case.input()
    p = prepared(case, training=False)
    assert case.oracle is not None
    expected = case.oracle(module, x.astype(np.float64))
    assert expected.shape == case.y
    close(quickly_compiled(p.y)(p.params, x), expected, case.tolerance)


@thoroughly
def test_derivatives_are_finite_differences(case: Case) -> None:
    """Backward, forward and second derivatives along one direction of parameters and input.

    Tokens stay where they are.
    """
    step = 1e-5
    p = prepared(case, training=bool(case.smooth))
    with jax.enable_x64(True):
        wide = (as_type(p.params, np.float64), as_type(p.rest, np.float64))
        p = dataclasses.replace(p, params=wide[0], rest=wide[1])
        at = (p.params, case.input(dtype=np.float64))
        draw = np.random.default_rng(4)
        along = jax.tree.map(lambda v: draw.normal(size=v.shape), at)

        def move(t: Any) -> tuple:
            return jax.tree.map(lambda v, d: v + t * d if v.dtype == d.dtype else v, at, along)

        def line(t: jax.Array) -> jax.Array:
            return p.scalar(*move(t))

        @quickly_compiled
        def derivatives(t: jax.Array) -> tuple:
            backward = jax.grad(p.scalar, case.differentiable)(*move(t))
            directions = along[: len(backward)]
            inner = jax.tree.map(lambda g, d: (g * d).sum(), backward, directions)
            return line(t), sum(jax.tree.leaves(inner)), jax.jacfwd(line)(t), jax.hessian(line)(t)

        before, here, after = (np.array(derivatives(np.float64(t))) for t in (-step, 0.0, step))
    assert np.isfinite(here).all()
    first = (after[0] - before[0]) / (2 * step)
    second = (after[1] - before[1]) / (2 * step)
    scale = max(1.0, abs(float(here[0])), abs(float(first)))
    np.testing.assert_allclose(here[2], here[1], rtol=1e-9, atol=1e-9 * scale)
    if case.smooth == "never":
        return
    np.testing.assert_allclose(here[1], first, rtol=1e-5, atol=1e-6 * scale)
    np.testing.assert_allclose(
        here[3], second, rtol=1e-4, atol=1e-5 * max(scale, abs(float(second)))
    )


@thoroughly
def test_vmap_over_inputs_and_over_weights_is_a_loop(case: Case) -> None:
    p = prepared(case)
    xs = [case.input(seed=0), case.input(seed=1)]
    gradient = jax.grad(p.scalar, case.differentiable)
    loop = quickly_compiled(gradient)
    got = quickly_compiled(jax.vmap(gradient, (None, 0)))(p.params, np.stack(xs))
    close(got, stacked(*(loop(p.params, x) for x in xs)))
    if p.params:
        members = [p.params, {k: np.asarray(v) * np.float32(1.25) for k, v in p.params.items()}]
        got = quickly_compiled(jax.vmap(gradient, (0, None)))(stacked(*members), xs[0])
        close(got, stacked(*(loop(params, xs[0]) for params in members)))


@pytest.mark.slow
@thoroughly
def test_bfloat16_stays_within_its_budget(case: Case) -> None:
    if "dtype" not in case.signature:
        pytest.skip("no dtype argument: it computes in the input's type")
    p, half = prepared(case), program(case, dtype=jnp.bfloat16)
    x = case.input()
    y = quickly_compiled(p.y)(p.params, x)
    close(quickly_compiled(half.y)(half.params, x).astype(jnp.float32), y, case.bfloat16_budget)


@pytest.mark.slow
@thoroughly
def test_eval_is_deterministic_and_changes_nothing(case: Case) -> None:
    p, x = prepared(case, training=False), case.input()
    run = quickly_compiled(p.run)
    first, rest = run(p.params, p.rest, x)
    again, _ = run(p.params, p.rest, x)
    np.testing.assert_array_equal(first, again)
    jax.tree.map(np.testing.assert_array_equal, rest, p.rest)


@pytest.mark.slow
@a_layer
def test_measuring_leaves_the_module_as_it_was(case: Case) -> None:
    module = case.make()
    module.train()
    graphdef, state = nnx.split(module)
    before = jax.tree.map(np.array, nnx.to_pure_dict(state))
    measure.cost(module, case.input())
    measure.executed(module, case.input())
    after_graph, after = nnx.split(module)
    assert after_graph == graphdef
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(after), before)


@every
def test_cost_is_the_docstrings_formula(case: Case) -> None:
    module = case.make()
    cost = measure.cost(module, case.input())
    assert {"params": cost.params, "MACs": cost.macs} == cost_formulas(case, module, case.y)


@thoroughly
def test_fast_form_equals_its_reference(case: Case) -> None:
    """Forward and gradient, at the case's batch and at batch 1."""

    def under(name: str, x: Any) -> Any:
        with ops.lowering(name):
            return jax.jit(jax.value_and_grad(p.scalar, case.differentiable))(p.params, x)

    p = prepared(case)
    close(under("cpu", case.input()), under("reference", case.input()), 3e-5)
    if case in FIRST:
        p = prepared(case, training=False)
        close(under("cpu", case.input(batch=1)), under("reference", case.input(batch=1)))


@pytest.mark.slow
@a_layer
def test_an_empty_batch_keeps_its_shape(case: Case) -> None:
    p = prepared(case, training=False)
    y = quickly_compiled(p.y)(p.params, case.input(batch=0))
    assert y.shape == (0, *case.y[1:])


@pytest.mark.slow
@tiers([c for c in FIRST if c.takes("out")], FIRST)
def test_out_is_the_same_under_every_transform(case: Case) -> None:
    p, x = prepared(case), jnp.asarray(case.input())
    eager = p.named(p.params, x)
    assert eager
    close(jax.jit(p.named)(p.params, x), eager)
    close(quickly_compiled(jax.checkpoint(p.named))(p.params, x), eager)

    def loss(params: Any) -> tuple[jax.Array, dict]:
        out = p.named(params, x)
        return sum(v.sum() for v in jax.tree.leaves(out)), out

    close(quickly_compiled(jax.grad(loss, has_aux=True))(p.params)[1], eager)
    scanned = jax.jit(lambda xs: jax.lax.scan(lambda _, x: (None, p.named(p.params, x)), None, xs))
    close(jax.tree.map(lambda v: v[0], scanned(x[None])[1]), eager)


@pytest.mark.parametrize("case", [c for c in FIRST if c.takes("rngs")], ids=str)
def test_randomness_is_asked_for_while_training(case: Case) -> None:
    p = prepared(case)
    with pytest.raises(ValueError, match="rngs"):
        jax.eval_shape(lambda x: merge(p.graphdef, p.params, p.rest)(x), case.input())


@a_layer
def test_an_input_of_the_other_kind_is_refused(case: Case) -> None:
    """Integers where numbers are wanted, floats where tokens are."""
    wrong = jnp.int32 if case.vocabulary is None else jnp.float32
    message = r"floating.*int32" if case.vocabulary is None else r"integer.*float32"
    with pytest.raises(TypeError, match=message):
        case.make()(jnp.ones(case.x, wrong))


@pytest.mark.slow  # eager: every operation is compiled by itself
@a_layer
def test_linen_twin_computes_the_same(case: Case) -> None:
    twin = getattr(linen, case.layer.__name__)(*case.args, **case.kwargs)
    x = jnp.asarray(case.input())
    y, variables = twin.init_with_output({"params": jax.random.key(0)}, x, train=False)
    variables = unbox(variables)  # of what a Variable's metadata wraps in Linen
    ours = case.make()
    ours.eval()
    arrays = {
        path: leaf
        for collection in variables.values()
        for path, leaf in nnx.traversals.flatten_mapping(
            nnx.to_pure_dict(nnx.State(collection))
        ).items()
    }
    state = nnx.to_flat_state(nnx.state(ours))
    assert {path for path, _ in state} == set(arrays)
    nnx.update(ours, nnx.from_flat_state({k: jnp.asarray(v) for k, v in arrays.items()}))
    close(y, ours(x), 2e-6)


@pytest.mark.slow
@a_layer
def test_tree_mode_of_nnx_computes_the_same(case: Case) -> None:
    """Flax can do without its object graph: no aliased Variables, no references held."""
    p, x = prepared(case), case.input()
    with nnx.set_graph_mode(False), nnx.set_graph_updates(False):
        tree = program(case)
        assert set(tree.params) == set(p.params)
        y = quickly_compiled(tree.y)(p.params, x)
    close(y, quickly_compiled(p.y)(p.params, x), 2e-6)


@a_layer
def test_two_training_steps_lower_the_loss(case: Case) -> None:
    def objective(model: Any, batch: dict, rngs: nnx.Rngs | None) -> tuple[jax.Array, dict]:
        rngs_given = {"rngs": rngs} if case.takes("rngs") else {}
        return ((model(batch["x"], **rngs_given) - batch["y"]) ** 2).mean(), {}

    p, tx = prepared(case), optax.sgd(0.01)
    if not p.params:
        pytest.skip("no parameters to train")
    batch = {"x": jnp.asarray(case.input()), "y": jnp.zeros(case.y)}
    step = jax.jit(train.step(objective, tx, p.graphdef, guard=train.Guard("off")))
    state = train.TrainState.create(p.params, p.rest, tx)
    losses = []
    for _ in range(3):
        state, metrics = step(state, batch, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert np.all(np.isfinite(losses))
    if not case.takes("rngs"):
        assert losses[2] < losses[0]


@pytest.mark.slow  # makes every case
def test_all_states_survive_saving_and_loading(tmp_path: Path) -> None:
    states = {str(c).replace(" ", "_").replace("/", "-"): c for c in CASES}
    saved = {k: prepared(c).params | prepared(c).rest for k, c in states.items()}
    saved = {k: v for k, v in saved.items() if v}
    with train.Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, saved, {}, force=True)
    with train.Checkpointer(tmp_path) as checkpointer:
        _, loaded, _ = checkpointer.restore(jax.tree.map(jnp.zeros_like, saved))
    jax.tree.map(np.testing.assert_array_equal, loaded, saved)


@pytest.mark.slow  # eager: every operation is compiled by itself
@pytest.mark.parametrize("name", sorted(registered()))
def test_the_docstrings_example_runs(name: str) -> None:
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    examples = finder.find(getattr(layers, name), name, globs={})
    assert any(example.examples for example in examples)
    for example in examples:
        assert runner.run(example).failed == 0
