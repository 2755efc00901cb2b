# SPDX-License-Identifier: Apache-2.0
"""launch.train and launch.evaluate as a user meets them: messages, exit codes, files."""

import fcntl
import json

import pytest

from efficient_layers import train
from tests.train import tiny_run
from tests.train.runs import launch, run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Of 20 steps, trained in this process."""
    folder = tmp_path_factory.mktemp("run")
    train.train(tiny_run.get_config(), folder, train.Options(stop_after_steps=20))
    return folder


def test_an_unknown_key_names_the_nearest():
    code, output = run("train", "--config=configs/digits.py", "--config.data.batchsize=3")
    assert code != 0
    assert 'Did you mean "batch_size"' in output


def test_a_wrong_type_is_refused():
    code, output = run("train", "--config=configs/digits.py", "--config.data.batch_size=many")
    assert code != 0
    assert "batch_size" in output
    assert "many" in output


def test_a_missing_workdir_flag_is_asked_for():
    code, output = run("train", "--config=configs/digits.py")
    assert code != 0
    assert "--workdir=DIR is needed" in output


def test_missing_data_names_the_command(tmp_path):
    flags = ["--config=configs/cifar10.py", "--config.data.data_dir=/nowhere"]
    code, output = run("train", *flags, f"--workdir={tmp_path / 'run'}")
    assert code == 1
    assert "download_and_prepare" in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_a_locked_workdir_is_refused(workdir):
    with open(workdir / "lock", "r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, output = launch(workdir)
    assert code == 1
    assert "WorkdirLockedError" in output
    assert "Traceback" not in output


def test_evaluate_agrees_with_the_report(workdir):
    code, output = run("evaluate", f"--workdir={workdir}", "--json")
    assert code == 0, output
    metrics = json.loads(output.strip().splitlines()[-1])
    report = json.loads((workdir / "report.json").read_text())
    assert metrics["accuracy"] == pytest.approx(report["quality"]["test_accuracy"], abs=1e-6)


def test_evaluate_without_a_workdir_says_what_is_missing(tmp_path):
    code, output = run("evaluate", f"--workdir={tmp_path}")
    assert code == 1
    assert "config.json" in output
