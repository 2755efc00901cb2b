# SPDX-License-Identifier: Apache-2.0
"""The classification objective against NumPy in float64 and against torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers.learn import supervised

pytestmark = pytest.mark.fast


class Identity(nnx.Module):
    """Logits are the input: the objective's own arithmetic is all that is left."""

    def __call__(self, x):
        return x


def batch(rows=6, classes=5, seed=0):
    draw = np.random.default_rng(seed)
    logits = draw.normal(scale=3, size=(rows, classes)).astype(np.float32)
    return {"image": logits, "label": draw.integers(0, classes, rows).astype(np.int32)}


def run(model, data, **options):
    return supervised.classification(**options)(model, jax.tree.map(jnp.asarray, data), None)


def softmax_numpy(logits):
    e = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_loss_and_accuracy_equal_numpy():
    data = batch()
    loss, metrics = run(Identity(), data)
    p = softmax_numpy(data["image"])
    want = np.mean([-np.log(p[i, label]) for i, label in enumerate(data["label"])])
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    np.testing.assert_allclose(metrics["cross_entropy"], want, rtol=1e-6)
    assert set(metrics) == {"loss", "cross_entropy", "accuracy"}
    hits = np.mean(data["image"].argmax(-1) == data["label"])
    np.testing.assert_allclose(metrics["accuracy"], hits, rtol=1e-6)
    assert {m.dtype for m in metrics.values()} == {jnp.dtype("float32")}


def test_label_smoothing_equals_its_formula():
    data = batch()
    loss, metrics = run(Identity(), data, label_smoothing=0.1)
    target = np.full((6, 5), 0.1 / 5)
    target[np.arange(6), data["label"]] += 0.9
    log_p = np.log(softmax_numpy(data["image"]))
    np.testing.assert_allclose(loss, np.mean(-(target * log_p).sum(-1)), rtol=1e-6)
    plain = np.mean(-log_p[np.arange(6), data["label"]])
    np.testing.assert_allclose(metrics["cross_entropy"], plain, rtol=1e-6)


@pytest.mark.oracle
def test_equals_torch_in_value_and_gradient():
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    data = batch()
    logits = torch.tensor(data["image"], requires_grad=True)
    label = torch.tensor(data["label"], dtype=torch.int64)
    want = torch.nn.functional.cross_entropy(logits, label, label_smoothing=0.2)
    want.backward()
    objective = supervised.classification(label_smoothing=0.2)

    def loss(x):
        return objective(Identity(), {"image": x, "label": jnp.asarray(data["label"])}, None)[0]

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(data["image"]))
    np.testing.assert_allclose(value, want.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-5, atol=1e-7)


def test_a_mask_leaves_rows_out_even_if_they_are_nan():
    data = batch()
    want = run(Identity(), {k: v[:4] for k, v in data.items()}, label_smoothing=0.1)
    data["image"][4:] = np.nan
    data["mask"] = np.array([1, 1, 1, 1, 0, 0], np.float32)
    got = run(Identity(), data, label_smoothing=0.1)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    data["mask"][:] = 0
    assert [float(m) for m in jax.tree.leaves(run(Identity(), data))] == [0, 0, 0, 0]


def test_soft_labels_are_probabilities():
    data = batch()
    p = softmax_numpy(batch(seed=1)["image"]).astype(np.float32)
    loss, metrics = run(Identity(), {**data, "label": p})
    want = np.mean(-(p * np.log(softmax_numpy(data["image"]))).sum(-1))
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    hits = np.mean(p.argmax(-1) == data["image"].argmax(-1))
    np.testing.assert_allclose(metrics["accuracy"], hits, rtol=1e-6)


def test_top5_from_100_classes_on():
    data = batch(rows=64, classes=100)
    _, metrics = run(Identity(), data)
    order = np.argsort(-data["image"], axis=-1)[:, :5]
    want = np.mean([label in row for label, row in zip(data["label"], order, strict=True)])
    np.testing.assert_allclose(metrics["top5_accuracy"], want, rtol=1e-6)
    assert "top5_accuracy" not in run(Identity(), batch(classes=99))[1]


def test_ties_nan_and_labels_out_of_range_are_wrong():
    data = {"image": np.zeros((4, 3), np.float32), "label": np.array([0, 1, 7, -1], np.int32)}
    data["image"][1] = np.nan
    _, metrics = run(Identity(), data)
    assert float(metrics["accuracy"]) == 0.0
    same = {"image": np.array([[9.0, 1.0, 2.0]] * 4, np.float32), "label": data["label"]}
    assert float(run(Identity(), same)[1]["accuracy"]) == 0.25


def test_losses_are_float32_from_bfloat16_logits():
    data = batch()
    data["image"] = jnp.asarray(data["image"], jnp.bfloat16)
    objective = supervised.classification(label_smoothing=0.1)
    jaxpr = jax.make_jaxpr(lambda b: objective(Identity(), b, None))(data)
    for equation in jaxpr.jaxpr.eqns:
        if equation.primitive.name in ("exp", "log", "reduce_sum", "reduce_max"):
            assert equation.invars[0].aval.dtype != jnp.bfloat16, equation
    assert run(Identity(), data)[0].dtype == jnp.float32


def test_l2_is_on_kernels_only():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 2, (2, 2), rngs=rngs)
            self.norm = nnx.BatchNorm(2, rngs=rngs)
            self.head = nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x):
            return self.head(self.norm(self.conv(x), use_running_average=True).mean((1, 2)))

    net = Net(nnx.Rngs(0))
    net.head.bias.set_value(jnp.full(3, 5.0))
    data = {"image": np.ones((2, 4, 4, 1), np.float32), "label": np.zeros(2, np.int32)}
    plain, with_l2 = run(net, data)[0], run(net, data, l2=0.01)[0]
    kernels = [np.asarray(net.conv.kernel[...]), np.asarray(net.head.kernel[...])]
    want = 0.01 * sum(np.sum(np.square(k.astype(np.float64))) for k in kernels)
    np.testing.assert_allclose(with_l2 - plain, want, rtol=1e-4)


def test_call_passes_rngs_and_out_only_to_those_who_name_them():
    class Takes(nnx.Module):
        def __call__(self, x, y=0, *, rngs=None, out=None):
            return x + y, rngs, out

    class Swallows(nnx.Module):
        def __call__(self, x, **options):
            return x, options

    rngs, out = nnx.Rngs(0), {}
    assert supervised.call(Takes(), 1, rngs=rngs, out=out) == (1, rngs, out)
    assert supervised.call(Takes(), (1, 2)) == (3, None, None)
    assert supervised.call(Takes(), {"x": 1, "y": 4}) == (5, None, None)
    assert supervised.call(Identity(), 1, rngs=rngs, out=out) == 1
    assert supervised.call(Swallows(), 1, rngs=rngs) == (1, {})
    assert supervised.call(lambda x, rngs: (x, rngs), 1, rngs=rngs) == (1, rngs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.zeros((6, 1), np.int32)}, r"labels must be integers \(6,\)"),
        ({"label": np.zeros(5, np.int32)}, r"Got int32\[5\]"),
        ({"label": np.zeros(6, np.float32)}, r"probabilities \(6, 5\)"),
        ({"image": np.zeros((6, 2, 5), np.float32)}, r"logits \[b, classes\]. Got \(6, 2, 5\)"),
        ({"mask": np.ones((6, 1), np.float32)}, r"mask must have shape \(6,\)"),
    ],
)
def test_wrong_shapes_are_errors_when_traced(change, message):
    objective = supervised.classification()
    data = {**batch(), **change}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda b: objective(Identity(), b, None), data)


@pytest.mark.parametrize(
    "options", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"l2": -1}]
)
def test_wrong_options_are_errors(options):
    with pytest.raises(ValueError, match=r"must be"):
        supervised.classification(**options)
