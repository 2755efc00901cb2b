# SPDX-License-Identifier: Apache-2.0
"""report.json and report.html on disk."""

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers.report import ReportError, read_report, write_report

pytestmark = pytest.mark.fast


def test_written_reports_are_read_back(make_report, tmp_path):
    report = make_report()
    page = write_report(tmp_path / "run", report)
    assert page == tmp_path / "run" / "report.html"
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert read_report(tmp_path / "run") == read_report(tmp_path / "run" / "report.json") == report
    assert sorted(os.listdir(tmp_path / "run")) == ["report.html", "report.json"]


def test_arrays_tuples_and_non_finite_numbers_become_json(make_report, tmp_path):
    report = make_report() | {
        "quality": {
            "test_accuracy": np.float32(0.5),
            "test_examples": np.int64(360),
            "jax": jnp.float32(0.25),
            "loss": float("nan"),
            "shape": (1, 2),
            "path": tmp_path,
        }
    }
    write_report(tmp_path, report)
    quality = json.loads((tmp_path / "report.json").read_text())["quality"]
    assert quality == {
        "test_accuracy": 0.5,
        "test_examples": 360,
        "jax": 0.25,
        "loss": None,
        "shape": [1, 2],
        "path": str(tmp_path),
    }


def test_a_failed_write_leaves_the_old_files(make_report, tmp_path, monkeypatch):
    write_report(tmp_path, make_report("old"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(tmp_path, make_report("new"))
    assert read_report(tmp_path)["model"] == "old"
    assert sorted(os.listdir(tmp_path)) == ["report.html", "report.json"]


def test_missing_report_names_the_command(tmp_path):
    command = r"python -m launch.train --config=CONFIG.py --workdir=.*nowhere"
    with pytest.raises(FileNotFoundError, match=command):
        read_report(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no valid JSON"),
        ("[]", "expected a JSON object with the key 'schema'"),
        ("{}", "expected a JSON object with the key 'schema'"),
        ('{"schema": 2}', "has schema 2; this version reads schema 1. Update efficient_layers."),
        ('{"schema": 0}', "has schema 0; this version reads schema 1. Make the report again."),
        ('{"schema": "1"}', "has schema '1'"),
        ('{"schema": true}', "has schema True"),
        ('{"schema": 1}', "'model' must be a str. Got nothing"),
        ('{"schema": 1, "model": "m", "quality": []}', "'quality' must be a dict. Got list"),
    ],
)
def test_unreadable_files_say_why(tmp_path, text, message):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ReportError) as caught:
        read_report(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_report_that_breaks_the_schema_is_not_written(make_report, tmp_path):
    report = make_report()
    del report["history"]
    with pytest.raises(ReportError, match=r"'history' must be a list\. Got nothing"):
        write_report(tmp_path, report)
    assert os.listdir(tmp_path) == []
