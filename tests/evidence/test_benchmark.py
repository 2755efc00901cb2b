# SPDX-License-Identifier: Apache-2.0
"""A tiny suite end to end, without torch."""

import os
import sys

import pytest

from efficient_layers import evidence
from efficient_layers.evidence import benchmark
from efficient_layers.evidence.cases import Case, ConvBNReLU6, Convolution, Model, Normalisation

pytestmark = pytest.mark.fast

MODEL = Model("menghani_cnn", "menghani_cnn", {"width": 0.05, "image_size": 8, "dropout_rate": 0})
TINY = (
    Case("model", "cnn", MODEL, (8, 8, 3), "training", 2),
    Case("stem", "stem", Convolution(4, 3, 2), (8, 8, 3), "inference", 1),
    Case("norm", "norm", Normalisation(), (4, 4, 4), "training", 2),
    Case("block", "block", ConvBNReLU6(Convolution(4, 3, 1, 4)), (4, 4, 4), "training", 2),
)


def test_a_row_a_case():
    rows = list(evidence.run(TINY[1:], against="none", calls=2, threads=1))
    assert [(row.workload, row.mode, row.batch) for row in rows] == [
        (case.workload, case.mode, case.batch) for case in TINY[1:]
    ]
    for row in rows:
        assert row.ours_ms > 0
        assert row.plain_ms > 0
        assert row.compile_s > 0
        assert (row.theirs_ms, row.ratio, row.calls) == (None, None, 2)
        assert "jax" in row.versions
        assert "torch" not in row.versions


@pytest.mark.slow
def test_training_a_model_without_plain():
    (row,) = evidence.run(TINY[:1], against="none", with_plain=False, calls=1)
    assert row.ours_ms > 0
    assert row.plain_ms is None


def test_a_slow_plain_side_is_called_once(monkeypatch):
    monkeypatch.setattr(benchmark, "PLAIN_S", 0.0)
    (row,) = evidence.run(TINY[1:2], against="none", calls=2)
    assert row.plain_ms > 0
    assert row.calls == 2


def test_unknown_side():
    with pytest.raises(ValueError, match="expects 'torch' or 'none'"):
        next(evidence.run(TINY, against="tf"))


def test_missing_torch_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install torch==2.13.0 .*--against=none"):
        next(evidence.run(TINY, against="torch"))


def test_too_many_threads():
    before = os.sched_getaffinity(0)
    with pytest.raises(ValueError, match="--threads expects 1 to"):
        evidence.set_threads(len(before) + 1)
    assert os.sched_getaffinity(0) == before
