# SPDX-License-Identifier: Apache-2.0
"""Whole models: totals by hand and as published, one row a layer, nothing changed."""

import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.layers import QuantParam
from efficient_layers.measure import cost

pytestmark = pytest.mark.fast


def shapes(make):
    """The module that `make` makes, without weights: nothing to compile."""
    return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))


class Small(nnx.Module):
    """conv 3x3 (3 -> 4, stride 2), BatchNorm, depthwise 3x3, linear to 5; 8 x 8 images."""

    def __init__(self, *, rngs):
        self.blocks = nnx.List(
            [
                nnx.Conv(3, 4, (3, 3), strides=2, use_bias=False, rngs=rngs),
                nnx.BatchNorm(4, rngs=rngs),
                nnx.Conv(4, 4, (3, 3), feature_group_count=4, rngs=rngs),
            ]
        )
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(self.drop(x.mean((1, 2))))


# name: (kind, params, macs, activations, bytes)
SMALL = {
    "blocks/0": ("conv", 108, 16 * 4 * 27, 64, 432),
    "blocks/1": ("BatchNorm", 8, 0, 0, 64),
    "blocks/2": ("depthwise conv", 40, 16 * 4 * 9, 64, 160),
    "head": ("linear", 25, 20, 5, 100),
}


@pytest.mark.parametrize("batch", [1, 16])
def test_small_net_by_hand(batch):
    model = shapes(Small)
    counted = cost(model, jax.ShapeDtypeStruct((batch, 8, 8, 3), jnp.float32))
    found = {
        r.name: (r.kind, r.params, r.macs, r.activations, r.weight_bytes) for r in counted.layers
    }
    assert found == SMALL
    assert list(found) == list(SMALL)
    totals = (counted.params, counted.macs, counted.activations, counted.weight_bytes)
    assert totals == tuple(sum(column) for column in list(zip(*SMALL.values(), strict=True))[1:])
    assert counted.flops == 2 * counted.macs


def test_in_tree_mode():
    with nnx.set_graph_mode(False), nnx.set_graph_updates(False):
        counted = cost(shapes(Small), np.zeros((2, 8, 8, 3), np.float32))
    assert {row.name: row.macs for row in counted.layers} == {k: v[2] for k, v in SMALL.items()}


def test_mobilenet_v2_as_published():
    """300.77 M MACs, 6.679 M activations (timm), 3,504,872 parameters (torchvision)."""
    model = shapes(lambda rngs: el.models.create("mobilenet_v2", rngs=rngs))
    counted = cost(model, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert counted.params == 3_504_872
    assert counted.macs == 300_774_272
    assert counted.activations == 6_679_112
    assert counted.weight_bytes == 4 * (3_504_872 + 34_112)  # and the running statistics


@pytest.mark.oracle
def test_mobilenet_v2_against_torchs_counter():
    """At an odd size, where strides round."""
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    # torchvision's compiled operators are absent beside a CPU-only torch: nothing to register.
    name = "torchvision._meta_registrations"
    sys.modules.setdefault(name, types.ModuleType(name))
    timm = pytest.importorskip("timm", reason="timm is the oracle; CI installs it")
    from torch.utils.flop_counter import FlopCounterMode

    theirs = timm.create_model("mobilenetv2_100", num_classes=7).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs(torch.zeros(1, 3, 75, 51))
    ours = shapes(lambda rngs: el.models.create("mobilenet_v2", num_classes=7, rngs=rngs))
    counted = cost(ours, jax.ShapeDtypeStruct((1, 75, 51, 3), jnp.float32))
    assert counted.flops == counter.get_total_flops()


@pytest.mark.parametrize("name", ["reference", "cpu", "gpu", "tpu"])
def test_the_lowering_in_force_does_not_change_the_count(name):
    model = shapes(
        lambda rngs: el.layers.InvertedResidual(4, 8, strides=2, expand_ratio=3, rngs=rngs)
    )
    x = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)
    with el.ops.lowering(name):
        counted = cost(model, x)
    assert counted.macs == 64 * 4 * 12 + 16 * 12 * 9 + 16 * 12 * 8
    assert counted.activations == 64 * 12 + 16 * 12 + 16 * 8


def test_the_model_is_left_as_it_was():
    model = Small(rngs=nnx.Rngs(0))
    model.train()
    before = jax.tree.map(np.array, nnx.state(model, (nnx.Param, nnx.BatchStat)))
    cost(model, np.ones((2, 8, 8, 3), np.float32))
    after = nnx.state(model, (nnx.Param, nnx.BatchStat))
    assert jax.tree.all(
        jax.tree.map(lambda a, b: a.tobytes() == np.array(b).tobytes(), before, after)
    )
    assert not model.drop.deterministic


def test_a_shared_layer_has_its_parameters_once_and_its_work_twice():
    class Twice(nnx.Module):
        def __init__(self, *, rngs):
            self.one = nnx.Linear(6, 6, use_bias=False, rngs=rngs)
            self.two = self.one

        def __call__(self, x):
            return self.two(self.one(x))

    counted = cost(shapes(Twice), jnp.ones((1, 6)))
    assert (counted.params, counted.macs) == (36, 72)
    assert [row.name for row in counted.layers] == ["one"]


def test_tied_embedding_serves_as_the_head():
    class Language(nnx.Module):
        def __init__(self, *, rngs):
            self.embed = nnx.Embed(50, 8, rngs=rngs)
            self.mix = nnx.Linear(8, 8, rngs=rngs)

        def __call__(self, tokens):
            return self.embed.attend(self.mix(self.embed(tokens)))

    counted = cost(shapes(Language), jnp.zeros((2, 3), jnp.int32))
    assert counted.params == 400 + 72
    assert {row.name: row.macs for row in counted.layers} == {"embed": 3 * 400, "mix": 3 * 64}


def test_attention_matmuls_have_a_row_of_their_own():
    class Attention(nnx.Module):
        def __init__(self, *, rngs):
            names = ("query", "key", "value")
            for name in names:
                setattr(self, name, nnx.LinearGeneral(8, (2, 4), use_bias=False, rngs=rngs))

        def __call__(self, x):
            q, k, v = self.query(x), self.key(x), self.value(x)
            with jax.named_scope("attention"):
                weights = jax.nn.softmax(jnp.einsum("bnhd,bmhd->bhnm", q, k))
                return jnp.einsum("bhnm,bmhd->bnhd", weights, v)

    counted = cost(shapes(Attention), jnp.ones((2, 5, 8)))
    work = {row.name: row.macs for row in counted.layers}
    assert work == {"query": 320, "key": 320, "value": 320, "attention": 2 * 2 * 5 * 5 * 4}
    assert counted.activations == 3 * 40 + 2 * 25 + 40


def test_what_counts_as_a_parameter_and_what_is_stored():
    class Mixed(nnx.Module):
        def __init__(self, *, rngs):
            self.weight = nnx.Param(jnp.ones((6, 2)))
            self.codes = QuantParam(jnp.ones((2, 3), jnp.int4))
            self.packed = QuantParam(jnp.ones((2, 2), jnp.uint8), logical_shape=(2, 3))
            self.mask = nnx.Variable(jnp.ones(5, bool))
            self.seen = nnx.Cache(jnp.zeros(1000))
            self.drop = nnx.Dropout(0.1, rngs=rngs)

        def __call__(self, x):
            return self.drop(x @ self.weight @ self.codes.astype(jnp.float32))

    counted = cost(shapes(Mixed), jnp.ones((1, 6)))
    assert counted.params == 12 + 6 + 6
    assert counted.weight_bytes == 48 + 3 + 4 + 5  # int4: two a byte
    assert [row.name for row in counted.layers] == ["(root)"]


def test_an_unused_layer_still_has_a_row():
    class Spare(nnx.Module):
        def __init__(self, *, rngs):
            self.used = nnx.Linear(2, 2, rngs=rngs)
            self.spare = nnx.Linear(3, 3, rngs=rngs)

        def __call__(self, x):
            return self.used(x)

    counted = cost(shapes(Spare), jnp.ones((1, 2)))
    assert [(r.name, r.kind, r.params) for r in counted.layers] == [
        ("used", "linear", 6),
        ("spare", "Linear", 12),
    ]


def test_several_inputs():
    class Two(nnx.Module):
        def __init__(self, *, rngs):
            self.a = nnx.Linear(2, 3, rngs=rngs)
            self.b = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x, y):
            return self.a(x) + self.b(y)

    model = shapes(Two)
    x, y = jnp.ones((7, 2)), jnp.ones((7, 4))
    assert cost(model, (x, y)).macs == cost(model, {"x": x, "y": y}).macs == 18
    assert cost(model, (x, y), batch_axis=None).macs == 7 * 18


def test_batch_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"one batch size along axis 0.*\(2, 3\).*batch_axis=None"):
        cost(jnp.matmul, (jnp.ones((2, 3)), jnp.ones((3, 4))))


def test_an_input_without_a_batch_is_told_what_to_do():
    with pytest.raises(TypeError) as caught:
        cost(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), jnp.ones(3))
    assert any("batch_axis=None" in note for note in caught.value.__notes__)


HEAD = ("layer", "kind", "shape", "params", "MACs", "share", "activations", "bytes")


def test_json_and_table():
    counted = cost(shapes(Small), jnp.ones((1, 8, 8, 3)))
    data = json.loads(json.dumps(counted.to_json()))
    assert {k: data[k] for k in ("params", "macs", "activations", "weight_bytes")} == {
        "params": 181,
        "macs": 1728 + 576 + 20,
        "activations": 133,
        "weight_bytes": 756,
    }
    assert data["layers"][0]["shape"] == [3, 3, 3, 4]
    text = str(counted).splitlines()
    assert text[0].split() == list(HEAD)
    assert text[-1].split() == ["total", "181", "2,324", "133", "756"]
    assert len({len(line) for line in text[:2]}) == 1
