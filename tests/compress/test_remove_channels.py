# SPDX-License-Identifier: Apache-2.0
"""Removing channels that are zero is masking them; arrays and MACs really shrink."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.compress.dimensions import dimensions
from efficient_layers.compress.remove_channels import RemoveChannels
from efficient_layers.compress.unit_scores import unit_scores
from efficient_layers.measure.view import pure
from efficient_layers.models.paths import at, modules, pattern
from efficient_layers.models.registry import FAMILIES
from tests.models.case import all_cases

CASES = {case.id: case for case in all_cases()}


# Case -> what the log says of the part that was restored.
RESTORED: dict = {}


def abstract(make):
    """A model without weights: `drawn` gives it some."""
    return nnx.eval_shape(make)


def drawn(model, seed=0):
    """Weights, scales and statistics that are nowhere 0 or 1."""
    generator = np.random.default_rng(seed)
    for _, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.Param | nnx.BatchStat):
            value = generator.uniform(0.3, 0.9, variable.shape)
            signs = (
                1 if isinstance(variable, nnx.BatchStat) else generator.choice([-1, 1], value.shape)
            )
            fan = max(1, np.prod(variable.shape[:-1]) ** 0.5) if variable.ndim > 1 else 1
            variable.set_value(jnp.asarray(value * signs / fan, variable.dtype))
    return model


def outputs(model, x):
    """Compiled fast, run slowly."""
    function = pure(model, x)
    options = {"xla_backend_optimization_level": 0}
    with el.ops.lowering("reference"):
        return jax.jit(function.apply, compiler_options=options)(function.state, function.arrays)


def masked(model, x, *, path, ratio, **settings):
    """The technique's own choice with its units' parameters zeroed.

    Returns the masked model and how many groups lost something.
    """
    technique = RemoveChannels(path, ratio=ratio, **settings)
    glob = pattern(path)
    matched = [(p, m) for p, m in [*modules(model), ("", model)] if glob.fullmatch(p)]
    context = el.compress.Context(model, tuple(matched), x)
    found = dimensions(model, x)
    scores = unit_scores(technique.criterion, context, found.groups)
    removals, _ = technique.choose(context, found, scores, ratio)
    for _, group, units in removals:
        for (path, axis), channels in group.members.items():
            variable = at(model, path)
            if isinstance(variable, nnx.Param):
                gone = np.moveaxis(np.array(variable[...]), axis, 0)
                gone[channels[units].ravel()] = 0
                variable.set_value(jnp.asarray(np.moveaxis(gone, 0, axis)))
    return model, len(removals)


def check(model, x, *, path="**", least=1, restored=None, **settings):
    """Zeroed and removed give the same outputs; returns the small model and the log."""
    model.eval()
    model, count = masked(drawn(model), x, path=path, **settings)
    assert count >= least
    small, log = el.compress.apply(model, RemoveChannels(path, **settings), example=x)
    wanted, got = (outputs(m, x) for m in (model, small))
    scale = float(jnp.abs(wanted).max())
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * max(1, scale))
    assert scale > 1e-3
    assert ("restored" in str(log)) == bool(restored), str(log)
    assert (restored or "") in str(log)
    before, after = el.measure.cost(model, x), el.measure.cost(small, x)
    assert after.macs < before.macs
    assert after.params < before.params
    return small, log


class Chain(nnx.Module):
    """conv-bn-relu twice, a mean over space, a classifier."""

    def __init__(self, *, groups=1):
        rngs = nnx.Rngs(0)
        self.conv1 = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.bn1 = nnx.BatchNorm(8, rngs=rngs)
        self.conv2 = nnx.Conv(8, 12, (3, 3), feature_group_count=groups, rngs=rngs)
        self.bn2 = nnx.BatchNorm(12, rngs=rngs)
        self.head = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.bn1(self.conv1(x)))
        x = jax.nn.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean((1, 2)))


IMAGE = np.random.default_rng(1).standard_normal((2, 6, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("criterion", ["l1", "l2", "bn_scale", "random"])
def test_conv_bn_relu(criterion):
    small, log = check(abstract(Chain), IMAGE, ratio=0.5, criterion=criterion, least=2)
    assert small.conv1.kernel.shape == (3, 3, 3, 4)
    assert small.conv2.kernel.shape == (3, 3, 4, 6)
    assert (small.conv2.in_features, small.conv2.out_features) == (4, 6)
    assert (small.bn2.num_features, small.bn2.mean.shape) == (6, (6,))
    assert (small.head.in_features, small.head.out_features) == (6, 5)
    assert all(row.touched for row in log.rows)


@pytest.mark.parametrize(("groups", "kernel"), [(2, (3, 3, 2, 6)), (4, (3, 3, 2, 6))])
def test_grouped_convolution(groups, kernel):
    """Two groups of 4 lose channels each; of four groups of 2, two go."""
    small, _ = check(abstract(lambda: Chain(groups=groups)), IMAGE, ratio=0.5)
    assert small.conv2.kernel.shape == kernel
    assert small.conv2.feature_group_count == {2: 2, 4: 2}[groups]


def test_scores_by_hand():
    """l1 and l2 over a group: a unit's column of a, its bias, its row of b."""
    model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 1, rngs=nnx.Rngs(0)))
    model.layers[0].kernel.set_value(jnp.array([[1.0, -2.0, 0.5], [3.0, 0.0, 0.5]]))
    model.layers[0].bias.set_value(jnp.array([0.0, 2.0, -0.5]))
    model.layers[1].kernel.set_value(jnp.array([[1.0], [-1.0], [0.5]]))
    x = np.array([[1.0, 2.0], [-1.0, 0.0]], np.float32)

    def scores(criterion, **given):
        context = el.compress.Context(model, (), x, **given)
        return unit_scores(criterion, context, dimensions(model, x).groups)

    np.testing.assert_allclose(scores("l1"), [[5, 5, 2]])
    np.testing.assert_allclose(scores("l2"), [np.sqrt([11, 9, 1])])
    assert scores("bn_scale") == [None]
    # The second layer reads (7, 0, 1) and (-1, 4, -1); the loss is its output, 7.5 and -5.5.
    np.testing.assert_allclose(scores("activation", data=[x]), [[4, 2, 1]])
    loss = {"data": [x[:1], x[1:]], "loss": lambda m, batch: m(batch).sum()}
    # (g w)^2 by hand, batch by batch: kernel a (2 rows), bias a, kernel b.
    first = [1 + 36 + 0 + 49, 4 + 0 + 4 + 0, 0.0625 + 0.25 + 0.0625 + 0.25]
    second = [1 + 0 + 0 + 1, 4 + 0 + 4 + 16, 0.0625 + 0 + 0.0625 + 0.25]
    np.testing.assert_allclose(scores("taylor", **loss), [np.mean([first, second], 0)], rtol=1e-6)


def net_of(*scales):
    """4 -> 4 -> 4 -> 1 with the given scores of the two hidden groups (l1), and its example."""
    layers = [nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(0)) for _ in scales]
    for layer, scale in zip(layers, scales, strict=True):
        layer.kernel.set_value(jnp.diag(jnp.array(scale)))
    last = nnx.Linear(4, 1, use_bias=False, rngs=nnx.Rngs(0))
    last.kernel.set_value(jnp.zeros((4, 1)))
    return nnx.Sequential(*layers, jnp.tanh, last), jnp.ones((1, 4))


def test_global_scope_ranks_all_units_by_their_share_of_the_groups_mean():
    """Group 1 has 1 + 9, 1 + 1, .. : units 1 to 3 of it are low; group 2 is nearly even."""
    model, x = net_of([10.0, 1, 1, 1], [1.0, 1, 1, 1])
    settings = {"ratio": 0.375, "scope": "global"}
    small, _ = el.compress.apply(model, RemoveChannels("**", **settings), example=x)
    assert (small.layers[0].out_features, small.layers[1].out_features) == (1, 4)
    small, _ = el.compress.apply(model, RemoveChannels("**", **settings, least=0.6), example=x)
    assert (small.layers[0].out_features, small.layers[1].out_features) == (3, 3)
    small, _ = el.compress.apply(model, RemoveChannels("**", ratio=0.375), example=x)
    assert (small.layers[0].out_features, small.layers[1].out_features) == (2, 2)
    small, _ = el.compress.apply(model, RemoveChannels("**", ratio=0.9, least=0.5), example=x)
    assert (small.layers[0].out_features, small.layers[1].out_features) == (2, 2)


def squares(model, batch):
    return (model(batch) ** 2).mean()


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
@pytest.mark.parametrize("scope", ["group", "global"])
def test_criteria_on_data_keep_what_is_used(criterion, scope):
    """Channels that are dead on the data go first, and nothing changes."""
    model = drawn(abstract(Chain))
    model.eval()
    for norm, dead in ((model.bn1, [0, 3, 4]), (model.bn2, [1, 5])):
        for v in (norm.scale, norm.bias):
            v.set_value(v[...].at[jnp.array(dead)].set(0))
    count = {"group": 0.2, "global": 5 / 20}[scope]
    small, log = el.compress.apply(
        model,
        RemoveChannels("**", ratio=count, criterion=criterion, scope=scope),
        example=IMAGE,
        data=[IMAGE[:1], IMAGE[1:]],
        loss=squares,
    )
    assert log.after.params < log.before.params
    np.testing.assert_allclose(outputs(small, IMAGE), outputs(model, IMAGE), rtol=1e-4, atol=1e-5)


def test_activation_needs_a_layer_that_reads():
    """Two grouped convolutions in a row: neither kernel has a row for each channel it reads."""
    model = abstract(lambda: Chain(groups=2))
    drawn(model)
    context = el.compress.Context(model, (), IMAGE, [IMAGE])
    found = unit_scores("activation", context, dimensions(model, IMAGE).groups)
    assert [scores is None for scores in found] == [True, False]


@pytest.mark.slow  # a real clock; the search itself is tested with a made-up one
def test_a_latency_is_reached():
    """Hidden features of a heavy layer go until a call takes half the time."""
    rngs = nnx.Rngs(0)
    layers = [nnx.Linear(128, 2048, rngs=rngs), jnp.tanh, nnx.Linear(2048, 128, rngs=rngs)]
    x = jnp.ones((64, 128))
    small, log = el.compress.apply(
        nnx.Sequential(*layers), RemoveChannels("**", latency_ms=0.5), example=x
    )
    assert 32 <= small.layers[0].out_features < 2048
    assert log.macs_after < log.macs_before


def test_heads_go_and_the_number_of_heads_is_rewritten():
    rngs = nnx.Rngs(0)
    attention = el.layers.GroupedQueryAttention(16, 4, num_kv_heads=2, rngs=rngs)
    x = jnp.ones((2, 5, 16))
    small, _ = el.compress.apply(attention, RemoveChannels("**", ratio=0.5), example=x)
    assert (small.num_heads, small.num_kv_heads, small.head_dim) == (2, 1, 4)
    assert small.query.kernel.shape == (16, 8)
    assert small.key.kernel.shape == small.value.kernel.shape == (16, 4)
    assert small.out.kernel.shape == (8, 16)
    assert small(x).shape == x.shape


@pytest.mark.parametrize("name", ["vit", "mobilenet_v2", "decoder", "seq2seq-lstm"])
def test_macs_without_a_trace(name):
    """The walk's own count is `measure.cost`'s, before a removal and after it."""
    case = CASES[name]
    model = drawn(abstract(lambda: el.models.create(case.family, **case.fields, rngs=nnx.Rngs(0))))
    x = case.inputs()
    batch = jax.tree.leaves(x)[0].shape[0]
    found = dimensions(model, x)
    assert found.macs(np.zeros(0, int)) == batch * el.measure.cost(model, x).macs
    small, _ = el.compress.apply(model, RemoveChannels("**", ratio=0.5), example=x)
    context = el.compress.Context(model, (*modules(model), ("", model)), x)
    scores = unit_scores("l1", context, found.groups)
    removals, _ = RemoveChannels("**", ratio=0.5).choose(context, found, scores, 0.5)
    gone = [found.roots[a][rows[r.units].ravel()] for r in removals for a, rows in [first(r)]]
    assert found.macs(np.concatenate(gone)) == batch * el.measure.cost(small, x).macs


def first(removal):
    return next(iter(removal.group.members.items()))


def test_every_family_has_a_case():
    assert {case.family for case in CASES.values()} == set(FAMILIES)


QUICK = {"vit": 2, "squeezenet": 4, "mobilenet_v2": 6}  # family -> groups that lose something
SLOW = [case for case in CASES if case not in QUICK and case not in ("mnist1d-linear",)]


@pytest.mark.parametrize(
    "family", [*QUICK, *(pytest.param(c, marks=pytest.mark.slow) for c in SLOW)]
)
def test_families(family):
    case = CASES[family]
    model = abstract(lambda: el.models.create(case.family, **case.fields, rngs=nnx.Rngs(0)))
    least = QUICK.get(family, 1)
    check(
        model, case.inputs(), ratio=0.5, averaged=False, least=least, restored=RESTORED.get(family)
    )


def test_a_residual_stream_under_layer_norms():
    """Removed, not masked: means change. What is left runs, and is rebuilt from the edits."""
    case = CASES["vit"]
    model = abstract(lambda: el.models.create(case.family, **case.fields, rngs=nnx.Rngs(0)))
    drawn(model)
    small, log = el.compress.apply(model, RemoveChannels("**", ratio=0.5), example=case.inputs())
    assert small.classifier.in_features == case.fields["features"] // 2
    assert small.blocks[0].attention.num_heads == 1
    assert "averaged" in str(log)
    rebuilt = el.compress.rebuild(model, log.edits)
    assert nnx.graphdef(rebuilt) == nnx.graphdef(small)
    shapes = [jax.tree.map(lambda leaf: leaf.shape, nnx.state(m)) for m in (rebuilt, small)]
    assert jax.tree.leaves(shapes[0]) == jax.tree.leaves(shapes[1])
    again, _ = el.compress.apply(small, RemoveChannels("**", ratio=0.5), example=case.inputs())
    assert again.classifier.in_features == case.fields["features"] // 4
