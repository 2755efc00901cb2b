# SPDX-License-Identifier: Apache-2.0
"""Zeros that stay, grow in number, or move: against NumPy, and through a checkpoint."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from efficient_layers import train
from efficient_layers.compress import apply
from efficient_layers.compress.gradual import gradual
from efficient_layers.compress.keep_zeros import apply_masks, keep_zeros
from efficient_layers.compress.prune import Prune
from efficient_layers.compress.schedule import polynomial
from efficient_layers.compress.sparse_training import rigl, sparse_evolution
from efficient_layers.train.checkpoint import Checkpointer

pytestmark = pytest.mark.fast
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 8)).astype(np.float32), RNG.normal(size=(32, 4)).astype(np.float32)


@functools.cache
def net():
    rngs = nnx.Rngs(0)
    return nnx.Sequential(nnx.Linear(8, 16, rngs=rngs), jnp.tanh, nnx.Linear(16, 4, rngs=rngs))


@functools.cache
def start(sparsity=0.75, **settings):
    """Graph, parameters, rest of the pruned net."""
    step = Prune("**", sparsity=sparsity, **settings)
    return train.split(apply(net(), [step])[0])


def stepper(graphdef, tx):
    def loss(params):
        model = nnx.merge(graphdef, nnx.from_flat_state(keyed(params)), copy=True)
        return ((model(X) - Y) ** 2).mean()

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, grads

    return step


def keyed(params):
    return {
        tuple(int(p) if p.isdigit() else p for p in path.split("/")): value
        for path, value in params.items()
    }


def zeros(params):
    return {n: np.asarray(p) == 0 for n, p in params.items() if p.ndim > 1}


def counts(params):
    return {name: int(z.sum()) for name, z in zeros(params).items()}


WRAPPERS = {
    "keep_zeros": keep_zeros,
    "gradual": lambda tx: gradual(
        tx, Prune("**", sparsity=0.9), schedule=polynomial(0, 20, every=5)
    ),
    "rigl": lambda tx: rigl(tx, every=7, end=50),
    "sparse_evolution": lambda tx: sparse_evolution(tx, every=7, end=50),
}


SLOW = pytest.param("sparse_evolution", marks=pytest.mark.slow)  # one code with rigl


@pytest.mark.parametrize("name", ["keep_zeros", "gradual", "rigl", SLOW])
def test_a_hundred_steps_after_a_resume_the_zeros_are_the_same(name, tmp_path):
    """60 steps, a checkpoint, 100 more with the restored state: no mask changes after step 50."""
    graphdef, params, _ = start()
    tx = WRAPPERS[name](optax.adamw(1e-2))
    step, state = stepper(graphdef, tx), tx.init(params)
    for _ in range(60):
        params, state, _ = step(params, state)
    expected = zeros(params)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(60, {"params": params, "opt_state": state}, {}, force=True)
        fresh = jax.eval_shape(lambda p: {"params": p, "opt_state": tx.init(p)}, params)
        here = jax.tree.leaves(params)[0].sharding
        fresh = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here), fresh)
        _, restored, _ = checkpointer.restore(fresh)
    masks = {path: np.asarray(mask) for path, mask in restored["opt_state"].masks.items()}
    after, state = restored["params"], restored["opt_state"]
    for _ in range(100):
        after, state, _ = step(after, state)
    for path, mask in masks.items():
        np.testing.assert_array_equal(state.masks[path], mask)
        assert expected[path][~mask].all()
        assert zeros(after)[path][~mask].all()
        assert (np.asarray(after[path]) != np.asarray(params[path])).sum() > 0.8 * mask.sum()


RULES = [
    "sgd",
    "adamw",
    *(pytest.param(r, marks=pytest.mark.slow) for r in ("adam", "lion", "muon")),
]


@pytest.mark.parametrize("rule", RULES)
def test_zeros_stay_under_every_optimiser(rule):
    graphdef, params, _ = start()
    tx = {
        "sgd": optax.sgd(0.1, momentum=0.9, nesterov=True),
        "adam": optax.adam(0.1),
        "adamw": optax.adamw(0.1, weight_decay=0.1),
        "lion": optax.lion(0.01),
        "muon": optax.contrib.muon(0.1),
    }[rule]
    tx = keep_zeros(optax.chain(optax.clip_by_global_norm(1.0), tx))
    step, state = stepper(graphdef, tx), tx.init(params)
    expected = zeros(params)
    for _ in range(5):
        params, state, _ = step(params, state)
    for path, zero in expected.items():
        np.testing.assert_array_equal(zeros(params)[path], zero)


def test_without_the_wrapper_they_do_not():
    graphdef, params, _ = start()
    tx = optax.sgd(0.1)
    found = stepper(graphdef, tx)(params, tx.init(params))[0]
    assert sum(counts(found).values()) < sum(counts(params).values()) / 2


def test_biases_and_arrays_not_trained_yet_are_left_alone():
    params = {"a/kernel": jnp.zeros((2, 3)), "b/kernel": jnp.eye(2), "b/bias": jnp.zeros(2)}
    grads = jax.tree.map(jnp.ones_like, params)

    def after(tx):
        updates, _ = tx.update(grads, tx.init(params), params)
        return {name: np.asarray(u != 0).tolist() for name, u in updates.items()}

    off = [[True, False], [False, True]]
    assert after(keep_zeros(optax.sgd(1.0))) == {
        "a/kernel": [[True] * 3] * 2, "b/kernel": off, "b/bias": [True, True]
    }  # fmt: skip
    named = after(keep_zeros(optax.sgd(1.0), path="a"))
    assert named["a/kernel"] == [[False] * 3] * 2
    assert named["b/kernel"] == [[True, True]] * 2


def test_a_state_of_nnx_is_a_tree_as_good_as_any():
    small, _ = apply(net(), [Prune("**", sparsity=0.5)])
    params = nnx.state(small, nnx.Param)
    tx = keep_zeros(optax.sgd(1.0))
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    found = optax.apply_updates(params, updates)["layers"][0]["kernel"][...]
    assert int((found == 0).sum()) == 64


# Gradual ------------------------------------------------------------------------------------------


def test_the_schedule_is_the_published_formula():
    schedule = polynomial(10, 110, every=20, initial=0.1)
    for t in (0, 9, 10, 30, 77, 110, 500):
        s = 0 if t < 10 else 0.9 + (0.1 - 0.9) * (1 - (min(t, 110) - 10) / 100) ** 3
        assert float(schedule.sparsity(t, 0.9)) == pytest.approx(s, abs=1e-6)
    due = [t for t in range(200) if schedule.due(t)]
    assert due == [10, 30, 50, 70, 90, 110]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_gradual_prunes_as_scheduled_and_never_gives_back(scope):
    graphdef, params, _ = start(0)
    tx = gradual(
        optax.sgd(0.05, momentum=0.9),
        Prune("**", sparsity=0.9, scope=scope),
        schedule=polynomial(2, 12, every=3),
    )
    step, state, plain = (
        stepper(graphdef, tx),
        tx.init(params),
        zeros(params),
    )
    for t in range(16):
        params, state, _ = step(params, state)
        now = zeros(params)
        assert all((now[n] | ~plain[n]).all() for n in now)
        plain = now
        last = max([d for d in (2, 5, 8, 11, 12) if d <= t], default=None)
        share = 0 if last is None else 0.9 * (1 - (1 - (last - 2) / 10) ** 3)
        wanted = [share * z.size for z in now.values()]
        found = [z.sum() for z in now.values()]
        if scope == "global":
            wanted, found = [sum(wanted)], [sum(found)]
        np.testing.assert_allclose(found, wanted, atol=1)


def test_gradual_zeroes_the_smallest_after_the_step():
    params = {"a/kernel": jnp.array([[1.0, -3.0], [2.0, -0.5]])}
    grads = {"a/kernel": jnp.array([[0.9, 0.0], [0.0, 3.0]])}
    tx = gradual(optax.sgd(1.0), Prune("a", sparsity=0.5, schedule=polynomial(0, 1)))
    state = tx.init(params)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["a/kernel"], [[0.1, -3], [2, -3.5]], atol=1e-6)
    grads = {"a/kernel": jnp.array([[-5.0, -2.9], [0.0, -3.4]])}  # to [[5.1, -0.1], [2, -0.1]]
    updates, state = tx.update(grads, state, params)
    found = optax.apply_updates(params, updates)["a/kernel"]
    np.testing.assert_array_equal(found == 0, [[False, True], [False, True]])


def test_movement_adds_up_over_steps():
    w = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    gradients = [np.array([[1.0, -1, 2, 0.5]]), np.array([[-2.0, 0, 1, -3]])]
    params = {"a/kernel": jnp.asarray(w)}
    tx = gradual(
        optax.sgd(0.0), Prune("a", sparsity=0.5, method="movement", schedule=polynomial(0, 1))
    )
    state = tx.init(params)
    for g in gradients:
        updates, state = tx.update({"a/kernel": jnp.asarray(g, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
    scores = -sum(g * w for g in gradients)  # [1, 2, -9, 10]
    np.testing.assert_array_equal(np.asarray(params["a/kernel"]) != 0, scores > 1)


def test_an_average_over_steps_is_masked_by_the_state():
    params = {"a/kernel": jnp.array([[1.0, -3.0], [2.0, -0.5]]), "a/bias": jnp.ones(2)}
    tx = gradual(optax.chain(optax.sgd(0.1)), Prune("a", sparsity=0.5), schedule=polynomial(0, 1))
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    average = jax.tree.map(lambda p: 0.5 * p, params)
    found = apply_masks((state, optax.EmptyState()), average)
    np.testing.assert_array_equal(found["a/kernel"], [[0, -1.5], [1, 0]])
    np.testing.assert_array_equal(found["a/bias"], [0.5, 0.5])
    with pytest.raises(ValueError, match="without masks"):
        apply_masks(optax.EmptyState(), params)


def test_the_first_rule_that_matches_wins():
    graphdef, params, _ = start(0)
    rules = [Prune("layers/2", sparsity=0.5), Prune("**", sparsity=0.75)]
    tx = gradual(optax.sgd(0.1), rules, schedule=polynomial(0, 1))
    step, state = stepper(graphdef, tx), tx.init(params)
    for _ in range(3):
        params, state, _ = step(params, state)
    assert counts(params) == {"layers/0/kernel": 96, "layers/2/kernel": 32}


# RigL and SET -------------------------------------------------------------------------------------


def numpy_rigl(w, g, mask, k):
    """One exchange, spelled with sorts: (new mask)."""
    active = np.flatnonzero(mask)
    dropped = active[np.argsort(np.abs(w.ravel()[active]), kind="stable")[:k]]
    kept = np.setdiff1d(active, dropped)
    rest = np.setdiff1d(np.arange(w.size), kept)
    grown = rest[np.argsort(-np.abs(g.ravel()[rest]), kind="stable")[:k]]
    new = np.zeros(w.size, bool)
    new[kept] = new[grown] = True
    return new.reshape(w.shape)


def test_rigl_drops_by_magnitude_and_grows_by_gradient():
    graphdef, params, _ = start(0.8, method="random", distribution="erk")
    tx = rigl(optax.sgd(0.05), every=4, end=10, fraction=0.3)
    step, state = stepper(graphdef, tx), tx.init(params)
    for t in range(14):
        before, masks = params, {n: np.asarray(m) for n, m in state.masks.items()}
        params, state, grads = step(params, state)
        for name, mask in masks.items():
            found = np.asarray(state.masks[name])
            if t in (4, 8):
                k = int(0.15 * (1 + np.cos(np.pi * t / 10)) * mask.sum())
                w, g = np.asarray(before[name]), np.asarray(grads[name])
                np.testing.assert_array_equal(found, numpy_rigl(w, g, mask, k))
            else:
                np.testing.assert_array_equal(found, mask)
            assert found.sum() == mask.sum()
            assert not np.asarray(params[name])[~found].any()
            assert not np.asarray(params[name])[found & ~mask].any()


def test_set_moves_as_many_weights_and_draws_others_each_time():
    graphdef, params, _ = start(0.75, method="random")
    tx = sparse_evolution(optax.sgd(0.05), every=5, fraction=0.5)
    step, state = stepper(graphdef, tx), tx.init(params)
    seen = []
    for _ in range(11):
        params, state, _ = step(params, state)
        seen.append(np.asarray(state.masks["layers/0/kernel"]))
    assert [int(mask.sum()) for mask in seen] == [32] * 11
    changes = [t for t in range(1, 11) if (seen[t] != seen[t - 1]).any()]
    assert changes == [5, 10]
    assert (seen[5] != seen[10]).any()


# Errors -------------------------------------------------------------------------------------------


def test_errors():
    params = start(0)[1]
    rule = Prune("**", sparsity=0.5)
    sgd, plan = optax.sgd(0.1), polynomial(0, 4)
    with pytest.raises(ValueError, match="has no schedule"):
        gradual(sgd, rule)
    with pytest.raises(ValueError, match="by its glob, not type="):
        gradual(sgd, Prune("**", sparsity=0.5, type="Linear"), schedule=plan)
    with pytest.raises(ValueError, match="Got 'snip'"):
        gradual(sgd, Prune("**", sparsity=0.5, method="snip"), schedule=plan)
    with pytest.raises(ValueError, match="Leave them out"):
        gradual(sgd, Prune("**", pattern="2:4"), schedule=plan)
    with pytest.raises(ValueError, match=r"'nowhere' matches no weights.*layers/0"):
        gradual(sgd, Prune("nowhere", sparsity=0.5), schedule=plan).init(params)
    with pytest.raises(ValueError, match="do not divide"):
        gradual(sgd, Prune("**", sparsity=0.5, pattern=(3, 1)), schedule=plan).init(params)
    tx = gradual(sgd, rule, schedule=plan)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match="prunes while training"):
        apply(net(), [Prune("**", sparsity=0.5, schedule=plan)])
    with pytest.raises(ValueError, match="none is zero"):
        rigl(sgd, end=10).init(params)
    with pytest.raises(ValueError, match=r"fraction in \(0, 1\)"):
        sparse_evolution(sgd, fraction=1.0)
    with pytest.raises(ValueError, match="begin < end"):
        polynomial(4, 4)
