# SPDX-License-Identifier: Apache-2.0
"""The metrics file: exact floats, crashes, resumes, and valid JSON whatever the number."""

import csv
import json
import math
import os
import signal
import struct
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers.train import metrics

pytestmark = pytest.mark.fast


def test_floats_round_trip_exactly(tmp_path):
    draw = np.random.default_rng(0)
    singles = draw.integers(0, 0x7F7F_FFFF, 200, np.uint32).view(np.float32)
    doubles = [5e-324, 1.7976931348623157e308, 0.1, -0.0, 1 / 3]
    path = tmp_path / "metrics.jsonl"
    with metrics.MetricsWriter(path) as writer:
        for step, single in enumerate(singles):
            writer.write(step, {"single": single, "array": jnp.asarray(single)})
        for step, double in enumerate(doubles):
            writer.write(1000 + step, {"double": double})
    records = metrics.read(path)
    back = np.array([r["single"] for r in records[:200]], np.float32)
    assert back.tobytes() == singles.tobytes()
    assert [r["array"] for r in records[:200]] == [r["single"] for r in records[:200]]
    packed = [struct.pack("d", r["double"]) for r in records[200:]]
    assert packed == [struct.pack("d", d) for d in doubles]


def test_nan_and_infinity_are_valid_json_and_come_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with metrics.MetricsWriter(path) as writer:
        writer.write(
            3, {"a": math.nan, "b": np.float32(math.inf), "c": -math.inf, "n": np.int64(7)}
        )

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    plain = json.loads(path.read_text(), parse_constant=refuse)
    assert plain == {"step": 3, "a": "NaN", "b": "Infinity", "c": "-Infinity", "n": 7}
    (record,) = metrics.read(path)
    assert math.isnan(record["a"])
    assert (record["b"], record["c"], record["n"]) == (math.inf, -math.inf, 7)


@pytest.mark.parametrize("torn", [b'{"step": 3, "loss": 0.', b'{"step": 3}', b"\x00\x00", b"{"])
def test_a_torn_last_line_is_ignored_and_repaired(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    whole = b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n'
    path.write_bytes(whole + torn)
    assert [r["step"] for r in metrics.read(path)] == [1, 2]
    with metrics.MetricsWriter(path) as writer:
        assert path.read_bytes() == whole
        writer.write(3, {"loss": 0.125})
    assert path.read_bytes() == whole + b'{"step": 3, "loss": 0.125}\n'


@pytest.mark.parametrize("line", [b"nonsense", b"[1]", b"3", b'{"loss": 1}', b'{"step": "x"}'])
def test_a_bad_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not a metrics record"):
        metrics.read(path)


def test_truncate_after_drops_what_a_resume_repeats(tmp_path):
    path = tmp_path / "metrics.jsonl"
    once = tmp_path / "once.jsonl"
    with metrics.MetricsWriter(once) as writer:
        for step in range(8):
            writer.write(step, {"loss": 1 / (step + 3), "odd": math.nan})
    with metrics.MetricsWriter(path) as writer:
        for step in range(6):
            writer.write(step, {"loss": 1 / (step + 3), "odd": math.nan})
    with metrics.MetricsWriter(path) as writer:
        assert writer.truncate_after(3) == 2
        assert writer.truncate_after(3) == 0
        for step in range(4, 8):
            writer.write(step, {"loss": 1 / (step + 3), "odd": math.nan})
    assert path.read_bytes() == once.read_bytes()
    assert path.with_suffix(".csv").read_bytes() == once.with_suffix(".csv").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "metrics.csv",
        "metrics.jsonl",
        "once.csv",
        "once.jsonl",
    ]


def test_lines_survive_a_killed_process(tmp_path):
    path = tmp_path / "metrics.jsonl"
    code = (
        "import sys, os, signal\n"
        "from efficient_layers.train.metrics import MetricsWriter\n"
        "w = MetricsWriter(sys.argv[1])\n"
        "for step in range(50): w.write(step, {'loss': 0.5})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert [r["step"] for r in metrics.read(path)] == list(range(50))


def test_the_csv_has_a_row_a_step(tmp_path):
    with metrics.MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        writer.write(1, {"loss": 0.5})
        writer.write(2, {"loss": 0.25})
        writer.write(2, {"eval/accuracy": 0.9})
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["step", "loss", "eval/accuracy"], ["1", "0.5", ""], ["2", "0.25", "0.9"]]


@pytest.mark.parametrize("value", ["0.5", None, b"1", [1.0, 2.0], np.zeros(2), 1j, {}])
def test_a_value_that_is_no_number_is_an_error(tmp_path, value):
    with (
        metrics.MetricsWriter(tmp_path / "metrics.jsonl") as writer,
        pytest.raises(TypeError, match="metric 'loss' must be"),
    ):
        writer.write(1, {"loss": value})


def test_every_sink_gets_every_record(tmp_path):
    class Sink:
        got: list = []  # noqa: RUF012

        def write(self, step, values):
            self.got.append((step, values))

        def close(self):
            self.got.append("closed")

    with metrics.MetricsWriter(tmp_path / "metrics.jsonl", also=[Sink()]) as writer:
        writer.write(4, {"loss": np.float32(0.5)})
    writer.close()
    assert Sink.got == [(4, {"loss": 0.5}), "closed"]


@pytest.mark.parametrize(
    ("sink", "package"), [(metrics.TensorBoard, "tensorboardX"), (metrics.WandB, "wandb")]
)
def test_an_absent_extra_names_its_command(tmp_path, monkeypatch, sink, package):
    monkeypatch.setitem(sys.modules, package, None)
    options = {"logdir": tmp_path} if package == "tensorboardX" else {}
    with pytest.raises(ImportError, match=f"pip install {package}"):
        sink(**options)


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    writer = metrics.MetricsWriter(tmp_path / "metrics.jsonl")
    writer._file.close()
    writer._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    with pytest.raises(OSError, match=r"No space left.*metrics\.jsonl"):
        writer.write(1, {"loss": 0.5})
    writer._file.close()
