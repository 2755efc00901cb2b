# SPDX-License-Identifier: Apache-2.0
"""The doctor: what it finds here, what it says of what is absent, and its exit code."""

import io
import json
import os
import subprocess
import sys
from collections import namedtuple

import jax
import numpy as np
import pytest
import rich.console

from efficient_layers.evidence import doctor

pytestmark = pytest.mark.fast


def find(findings, name):
    (finding,) = [f for f in findings if f.name == name]
    return finding


def test_everything_required_is_found_in_this_environment(tmp_path):
    findings = doctor.examine(workdir=str(tmp_path / "runs"))
    assert doctor.ok(findings), [f for f in findings if f.state == "broken"]
    groups = list(dict.fromkeys(f.group for f in findings))
    assert groups[:2] == ["required", "devices"]
    assert {"gpu", "tpu", "prepare", "hpo", "dev"} <= set(groups)
    assert {"oracles", "browser", "data", "disk"} <= set(groups)
    assert find(findings, "digits").state == "ok"
    (numpy,) = [f for f in findings if f.name.startswith("numpy")]
    assert numpy.found == np.__version__
    assert all(f.command for f in findings if f.state != "ok")
    assert not any(f.command for f in findings if f.state == "ok")


def test_a_required_package_that_is_gone_or_old_is_broken(monkeypatch):
    versions = {"jax": "0.9.1", "flax": "0.12.8"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    asked = ["jax>=0.10.2,<0.13", "flax>=0.12.8", "optax>=0.2.8"]
    old, fine, gone = doctor.packages("required", asked, required=True)
    assert (old.state, old.found) == ("broken", "0.9.1 does not fit")
    assert old.command.endswith("-m pip install 'jax>=0.10.2,<0.13'")
    assert (fine.state, fine.found, fine.command) == ("ok", "0.12.8", "")
    assert (gone.state, gone.found) == ("broken", "not installed")
    assert not doctor.ok([fine, gone])


def test_an_absent_extra_does_no_harm(monkeypatch):
    monkeypatch.setattr(doctor, "_version", {}.get)
    (gpu,) = doctor.packages("gpu", ["jax[cuda13]"])
    assert (gpu.state, gpu.found) == ("absent", "not installed")
    assert gpu.command.endswith("-m pip install 'jax[cuda13]'")
    assert doctor.ok([gpu])
    assert list(doctor.packages("x", ["old-thing; python_version < '3.0'"])) == []
    vision = [f for f in doctor.oracles() if f.name.startswith("torchvision")]
    assert "--no-deps torchvision==0.28.0" in vision[0].command


def test_extras_come_from_pyproject_and_from_metadata(monkeypatch, tmp_path):
    required, extras = doctor.declared()
    assert any(r.startswith("flax") for r in required)
    assert extras["hpo"] == ["optuna>=5"]
    monkeypatch.setattr(doctor, "_ROOT", tmp_path)
    monkeypatch.setattr(
        doctor.importlib.metadata,
        "requires",
        lambda name: ["jax>=0.10", 'optuna>=5; extra == "hpo"'],
    )
    listed = type("Listed", (), {"get_all": lambda self, name: ["hpo"]})()
    monkeypatch.setattr(doctor.importlib.metadata, "metadata", lambda name: listed)
    required, extras = doctor.declared()
    assert required == ["jax>=0.10"]
    (optuna,) = doctor.packages("hpo", extras["hpo"])
    assert optuna.name == "optuna>=5"


def test_prepared_data_sets_are_listed(tmp_path):
    for place in ("cifar10/3.0.2", "glue/sst2/2.0.0", "half/1.0.0.incomplete"):
        (tmp_path / place).mkdir(parents=True)
    for place in ("cifar10/3.0.2", "glue/sst2/2.0.0"):
        (tmp_path / place / "dataset_info.json").touch()
    _, found = doctor.data(str(tmp_path))
    assert (found.state, found.found) == ("ok", "cifar10, glue")
    _, empty = doctor.data(str(tmp_path / "nowhere"))
    assert (empty.state, empty.found) == ("broken", "no such folder")
    assert "cli.main build cifar10 --data_dir=" in empty.command


def test_a_folder_that_cannot_be_written_or_is_full_is_broken(monkeypatch, tmp_path):
    assert doctor.writable(tmp_path / "new" / "deep").state == "ok"
    assert not (tmp_path / "new").exists()
    usage = namedtuple("usage", "total used free")(1, 1, 10)
    with monkeypatch.context() as patch:
        patch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
        assert doctor.writable(tmp_path).command == "make room: a run needs 1 GiB"

    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    locked = doctor.writable(tmp_path)
    assert locked.state == "broken"
    assert "Permission denied" in locked.found


def test_a_backend_that_does_not_start_and_a_gpu_that_is_not_used(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    if jax.default_backend() == "cpu":
        assert "jax[cuda13]" in find(doctor.devices(), "GPU").command

    def fail():
        raise RuntimeError("Unknown backend: 'gpux'\nmore")

    monkeypatch.setattr(doctor.jax, "devices", fail)
    (broken,) = doctor.devices()
    assert (broken.state, broken.found) == ("broken", "Unknown backend: 'gpux'")
    assert broken.command == "unset JAX_PLATFORMS"


def test_the_table_shows_names_as_they_are():
    console = rich.console.Console(width=100, file=io.StringIO())
    bad = doctor.Finding("gpu", "jax[cuda13]", "absent", "not installed", "pip install x")
    console.print(doctor.table([bad]))
    assert "jax[cuda13]" in console.file.getvalue()
    assert doctor.commands([bad]) == ["gpu: pip install x"]


def _launch(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "launch.doctor", *arguments],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_prints_json_and_its_exit_code_says_broken(tmp_path):
    good = _launch("--json", f"--workdir={tmp_path}")
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["ok"] is True
    bad = _launch(f"--data_dir={tmp_path / 'nowhere'}", f"--workdir={tmp_path}")
    assert bad.returncode == 1
    assert "! no such folder" in bad.stdout
    assert "Something required is broken" in bad.stdout


def test_without_the_packages_the_command_says_how_to_get_them(tmp_path):
    (tmp_path / "rich.py").write_text("raise ImportError('No module named rich')")
    done = _launch(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "pip install -r requirements.txt" in done.stderr
    assert "Traceback" not in done.stderr
