# SPDX-License-Identifier: Apache-2.0
"""CSV, Markdown and terminal tables of a run."""

import csv
import dataclasses
import io
import re

import pytest
from rich.console import Console

from efficient_layers import evidence

pytestmark = pytest.mark.fast

ROW = evidence.Row(
    kind="model",
    workload="net",
    mode="inference",
    batch=1,
    ours_ms=2.0,
    theirs_ms=5.0,
    ratio=2.5,
    plain_ms=None,
    compile_s=0.75,
    spread=1.5,
    load=0.1,
    calls=30,
    threads=2,
    device="cpu: Some Processor, 2 cores",
    versions="jax 0.10.2, flax 0.12.8, torch 2.13.0",
)


def test_csv_has_every_column(tmp_path):
    path, _ = evidence.write([ROW, ROW], tmp_path / "new", "models", "torch")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [field.name for field in dataclasses.fields(evidence.Row)]
    assert len(rows) == 2
    assert (rows[0]["ratio"], rows[0]["plain_ms"]) == ("2.5", "")
    assert rows[0]["device"] == ROW.device


def test_file_names_carry_environment_and_date(tmp_path):
    paths = evidence.write([ROW], tmp_path, "models", "torch")
    assert {path.suffix for path in paths} == {".csv", ".md"}
    pattern = r"models-against-torch-cpu2-jax0\.10\.2-\d{4}-\d\d-\d\d"
    assert all(re.fullmatch(pattern, path.stem) for path in paths)


def test_markdown_is_a_table():
    text = evidence.markdown([ROW], "Title")
    assert "| net | inference | 1 | 2.00 | 5.00 | 2.50 | - | 0.75 | 1.50 |" in text
    header = (
        "| workload | mode | batch | ours_ms | theirs_ms | ratio | plain_ms | compile_s | spread |"
    )
    assert header in text
    assert ROW.versions in text


def test_an_unsteady_ratio_is_marked():
    row = dataclasses.replace(ROW, theirs_ms=1106.3, ratio=553.15, spread=45.0)
    assert not row.steady
    assert "| 553.15 ? |" in evidence.markdown([row], "Title")


def test_terminal_shows_the_numbers():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(evidence.terminal([ROW], "Title"))
    text = console.export_text()
    assert "2.50" in text
    assert "net" in text


def test_no_rows(tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        evidence.write([], tmp_path, "models", "none")


def test_summary_is_the_geometric_mean_a_kind_mode_and_batch():
    slow = dataclasses.replace(ROW, workload="slow", ratio=0.4, plain_ms=8.0)
    training = dataclasses.replace(ROW, mode="training", theirs_ms=None, ratio=None, spread=3.0)
    both, alone = evidence.summarise([ROW, slow, training])
    assert (both.kind, both.mode, both.batch, both.rows) == ("model", "inference", 1, 2)
    assert both.ratio == pytest.approx((2.5 * 0.4) ** 0.5)
    assert (both.lowest, both.lowest_at) == (0.4, "slow")
    assert (both.plain_ratio, both.plain_lowest) == (4.0, 4.0)
    assert (alone.mode, alone.ratio, alone.lowest, alone.unsteady) == ("training", None, None, 1)
    text = evidence.markdown([ROW, slow, training], "Title")
    assert "| model | inference | 1 | 2 | 0 | 1.00 | 0.40 | slow | 4.00 | 4.00 |" in text
