# SPDX-License-Identifier: Apache-2.0
"""A poisoned batch under each policy: what stops, what goes on, what is written."""

import json

import numpy as np
import pytest

from efficient_layers import train
from efficient_layers.data.pipeline import TrainIterator
from efficient_layers.train.metrics import read
from tests.train.runs import arrays, tiny_config


@pytest.fixture
def poison(monkeypatch):
    """`poison(n, m, ...)`: the n-th, m-th, ... batches read from now on are NaN."""
    original, seen = TrainIterator.__next__, []

    def install(*bad: int) -> list[np.ndarray]:
        def __next__(self):  # noqa: N807
            batch = original(self)
            seen.append(batch["index"].copy())
            if len(seen) in bad:
                batch["image"] = np.full_like(batch["image"], np.nan)
            return batch

        monkeypatch.setattr(TrainIterator, "__next__", __next__)
        return seen

    return install


def _config(policy: str, **guard: object):
    config = tiny_config(log_every="1 steps")
    config.train.guard.update({"policy": policy, **guard})
    return config


def test_abort_names_the_rows_and_norms(tmp_path, poison):
    seen = poison(7)
    with pytest.raises(train.NonFiniteError, match=r"step 7: loss nan.*guard\.policy=skip"):
        train.train(_config("abort"), tmp_path)
    account = json.loads((tmp_path / "failures" / "step_7.json").read_text())
    assert account["examples"] == seen[6].tolist()
    assert account["metrics"]["loss"] == "nan"
    assert account["grad_norms"]["dense/kernel"] == "nan"


def test_skip_goes_on_and_the_run_is_clean(tmp_path, poison):
    poison(7, 8)
    result = train.train(_config("skip"), tmp_path)
    assert result.step == 24
    accepted = {
        line["step"]: line["accepted"]
        for line in read(tmp_path / "metrics.jsonl")
        if "accepted" in line
    }
    assert [step for step, value in accepted.items() if value < 1] == [7, 8]
    assert all(np.isfinite(value).all() for value in arrays(tmp_path, 24)[0].values())


def test_skip_gives_up_after_patience(tmp_path, poison):
    poison(*range(5, 30))
    with pytest.raises(train.NonFiniteError, match="3 in a row"):
        train.train(_config("skip", patience=3), tmp_path)


def test_rollback_restores_the_last_checkpoint_and_takes_later_data(tmp_path, poison):
    seen = poison(13)  # the checkpoints before are of steps 10 and 12
    result = train.train(_config("rollback"), tmp_path)
    assert result.step == 24
    steps = [line["step"] for line in read(tmp_path / "metrics.jsonl") if "train/loss" in line]
    assert steps == list(range(1, 25))
    # Step 14 was under way when 13 was found bad: both batches are left behind.
    assert len(seen) == 24 + 2
    assert len({tuple(rows) for rows in seen}) == len(seen)
