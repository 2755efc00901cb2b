# SPDX-License-Identifier: Apache-2.0
"""A model that lost blocks and channels comes back from safetensors and from a checkpoint."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.train.checkpoint import Checkpointer
from tests.compress.test_apply import logits
from tests.models.case import all_cases

CASES = {case.id: case for case in all_cases()}


def base(name):
    case = CASES[name]
    model = el.models.create(case.family, **case.fields, rngs=nnx.Rngs(0))
    model.eval()
    return model


@pytest.mark.parametrize(
    "name", ["vit", *(pytest.param(c, marks=pytest.mark.slow) for c in ("mobilenet_v2", "decoder"))]
)
def test_from_files_and_edits_alone(name, tmp_path):
    x = CASES[name].inputs()
    steps = [
        el.compress.RemoveBlocks("blocks/*", count=1, criterion="last"),
        el.compress.RemoveChannels("**", ratio=0.5),
    ]
    small, log = el.compress.apply(base(name), steps, example=x)
    assert log.after.params < 0.6 * log.before.params
    wanted = logits(small, x)
    edits = json.loads(json.dumps(log.edits))

    def empty():
        return el.compress.rebuild(nnx.eval_shape(lambda: base(name)), edits)

    el.models.save_weights(small, tmp_path / "small.safetensors")
    again = el.models.load_weights(empty(), tmp_path / "small.safetensors")
    np.testing.assert_array_equal(logits(again, x), wanted)

    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        checkpointer.save(1, nnx.to_pure_dict(nnx.state(small)), {}, force=True)
    graphdef, state = nnx.split(empty())
    with Checkpointer(tmp_path / "checkpoints", read_only=True) as checkpointer:
        _, arrays, _ = checkpointer.restore(nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, jax.tree.map(np.asarray, arrays))
    np.testing.assert_array_equal(logits(nnx.merge(graphdef, state), x), wanted)
