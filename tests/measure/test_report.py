# SPDX-License-Identifier: Apache-2.0
"""A report measured on a small model follows schema 1 and makes a page."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers.measure.memory import memory
from efficient_layers.measure.report import read_report, report, write_report

pytestmark = pytest.mark.fast
KNOWN = {"quality": {"test_accuracy": 0.9, "test_examples": 10}, "training": {"seconds": 1.0}}
HISTORY = [{"step": 1, "train/loss": np.float32(2.0)}, {"step": 2, "train/loss": float("inf")}]


class Net(nnx.Module):
    """3 -> 5 -> 2, with dropout so that the mode shows."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(3, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.second = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        return self.second(self.norm(self.first(x)))


@pytest.fixture(scope="module")
def made():
    model = Net(nnx.Rngs(0))
    before = [np.asarray(leaf) for leaf in nnx.to_flat_state(nnx.state(model)).leaves]
    x = jnp.ones((3, 3))
    found = report(model, x, **KNOWN, history=HISTORY, batches=(4, 1), config={"seed": 0})
    after = [np.asarray(leaf) for leaf in nnx.to_flat_state(nnx.state(model)).leaves]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert not model.norm.use_running_average  # still in train mode
    return found


def test_schema_1(made):
    assert made["schema"] == 1
    assert made["model"] == "Net"
    assert made["quality"] == KNOWN["quality"]
    assert made["training"] == KNOWN["training"]
    assert made["config"] == {"seed": 0}
    assert made["history"][0] == {"step": 1, "train/loss": 2.0}
    assert made["history"][1]["train/loss"] is None
    json.dumps(made, allow_nan=False)


def test_cost_is_that_of_one_example(made):
    assert made["cost"]["params"] == 3 * 5 + 5 + 2 * 5 + 5 * 2 + 2
    assert made["cost"]["macs"] == 3 * 5 + 5 * 2
    assert made["cost"]["activations"] == 5 + 2
    assert sum(row["macs"] for row in made["cost"]["layers"]) == made["cost"]["macs"]


def test_latency_has_a_row_a_batch_size(made):
    latency = made["latency"]
    assert list(latency["batch"]) == ["1", "4"]
    for row in latency["batch"].values():
        assert 0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
        assert row["calls"] >= 30
    assert latency["compile_s"] == latency["batch"]["1"]["compile_s"] > 0
    assert isinstance(latency["device"], str)


def test_memory_executed_environment_are_there(made):
    assert made["memory"]["peak_bytes"] > 0
    assert set(made["memory"]) == set(memory(Net(nnx.Rngs(0)), jnp.ones((1, 3))))
    assert made["memory"]["weight_bytes"] == made["cost"]["weight_bytes"]
    assert "dots" in made["executed"]
    assert made["created"] == made["environment"]["date"]


def test_writes_and_reads_back(made, tmp_path):
    page = write_report(tmp_path, made)
    assert "Net" in page.read_text()
    assert read_report(tmp_path) == made


def test_tuple_and_dict_inputs_and_a_plain_function():
    def add(a, b):
        return a @ b.T

    for x in ((np.ones((2, 3)), np.ones((2, 3))), {"a": np.ones((1, 3)), "b": np.ones((1, 3))}):
        found = report(add, x, **KNOWN, history=[], batches=(2,), name="sum")
        assert found["model"] == "sum"
        assert "config" not in found
        assert list(found["latency"]["batch"]) == ["2"]


@pytest.mark.parametrize("batches", [(), (0,), (4, -1)])
def test_bad_batches(batches):
    with pytest.raises(ValueError, match="batch sizes of at least 1"):
        report(lambda x: x, np.ones((1, 2)), **KNOWN, history=[], batches=batches)
