# SPDX-License-Identifier: Apache-2.0
"""A workdir has one writer, one configuration, and clear words for everything else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from efficient_layers.train import disk
from efficient_layers.train.workdir import (
    ConfigMismatchError,
    Workdir,
    WorkdirError,
    WorkdirLockedError,
)
from tests.train import child

pytestmark = pytest.mark.fast

CONFIG: dict[str, Any] = {"seed": 0, "train": {"steps": 10, "rate": 0.1}, "sizes": (1, 2)}
MODEL: dict[str, Any] = {"create": {"name": "m", "fields": {"width": 1.0}}, "edits": []}


def _create(path: Path, **changes: Any) -> Workdir:
    fields = {"config": CONFIG, "model": MODEL, "environment": {"jax": "1"}, **changes}
    return Workdir.create(path, **fields)


def test_written_files_are_versioned_json(tmp_path: Path) -> None:
    with _create(tmp_path / "a" / "b") as workdir:
        names = {path.name for path in workdir.path.iterdir()}
    assert names == {"config.json", "model.json", "environment.json", "checkpoints", "lock"}
    document = json.loads((workdir.path / "model.json").read_text())
    assert document == {"schema": 1, **MODEL}
    document = json.loads((workdir.path / "config.json").read_text())
    assert document == {"schema": 1, "config": {**CONFIG, "sizes": [1, 2]}}


def test_open_reads_what_create_wrote_while_it_is_locked(tmp_path: Path) -> None:
    with _create(tmp_path) as written:
        read = Workdir.open(tmp_path)
        assert (read.config, read.model) == (written.config, written.model) != (None, None)
        assert read.config["sizes"] == [1, 2]
        assert read.environment == {"runs": [{"jax": "1"}]}
        assert read.checkpoints.is_dir()
        assert read.metrics_path == tmp_path / "metrics.jsonl"
        assert read.report_html_path == tmp_path / "report.html"


def test_each_restart_appends_its_environment(tmp_path: Path) -> None:
    for version in "123":
        with _create(tmp_path, environment={"jax": version}) as workdir:
            pass
    assert [run["jax"] for run in workdir.environment["runs"]] == ["1", "2", "3"]
    assert Workdir.open(tmp_path).environment == workdir.environment


def test_one_writer_and_the_error_names_it(tmp_path: Path) -> None:
    with _create(tmp_path):
        with pytest.raises(WorkdirLockedError) as caught:
            _create(tmp_path)
        assert f"process {os.getpid()} on {socket.gethostname()}" in str(caught.value)
    _create(tmp_path).close()


_HOLDER = """
import os, sys, time
from efficient_layers.train.workdir import Workdir
w = Workdir.create(sys.argv[1], config={}, model={}, environment={})
if os.fork() == 0:
    os.write(1, b"%d\\n" % os.getpid())
time.sleep(60)
"""


def test_lock_dies_with_its_holder_and_not_with_the_holders_children(tmp_path: Path) -> None:
    process = child.start(_HOLDER, str(tmp_path))
    worker = int(child.line(process))
    try:
        with pytest.raises(WorkdirLockedError, match=f"process {process.pid} on"):
            _create(tmp_path, config={}, model={}, environment={})
        process.send_signal(signal.SIGKILL)
        process.wait()
        _create(tmp_path, config={}, model={}, environment={}).close()
        os.kill(worker, 0)  # the forked worker is still alive
    finally:
        os.kill(worker, signal.SIGKILL)
        child.end(process)


def test_another_config_is_refused_key_by_key(tmp_path: Path) -> None:
    _create(tmp_path).close()
    before = (tmp_path / "config.json").read_bytes()
    other = {"seed": 0, "train": {"steps": 20, "clip": 1.0}, "sizes": [1, 3]}
    model = {"create": {"name": "m", "fields": {"width": 0.5}}, "edits": []}
    with pytest.raises(ConfigMismatchError) as caught:
        _create(tmp_path, config=other, model=model)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:-1]]
    assert lines == [
        "config.sizes: [1, 2] -> [1, 3]",
        "config.train.clip: (absent) -> 1.0",
        "config.train.rate: 0.1 -> (absent)",
        "config.train.steps: 10 -> 20",
        "model.create.fields.width: 1.0 -> 0.5",
    ]
    assert "new --workdir" in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == before
    _create(tmp_path).close()  # the lock was given back


def test_keys_that_may_change_do_and_are_kept(tmp_path: Path) -> None:
    _create(tmp_path).close()
    config = {**CONFIG, "seed": 1, "train": {"steps": 10, "rate": 0.5}}
    with pytest.raises(ConfigMismatchError, match=r"config.seed: 0 -> 1\nUse"):
        _create(tmp_path, config=config, may_change=["train.rate"])
    with _create(tmp_path, config=config, may_change=["train", "seed"]) as workdir:
        assert workdir.config["train"]["rate"] == 0.5
    assert Workdir.open(tmp_path).config["seed"] == 1


def test_nan_and_infinity_equal_themselves(tmp_path: Path) -> None:
    config = {"a": float("nan"), "b": float("inf")}
    for _ in range(2):
        _create(tmp_path, config=config).close()


def test_values_that_are_no_json(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="JSON values only"):
        _create(tmp_path, config={"a": {1, 2}})
    _create(tmp_path).close()


def test_newer_schema_is_refused_by_reader_and_writer(tmp_path: Path) -> None:
    _create(tmp_path).close()
    for name in ("config.json", "model.json", "environment.json"):
        old = (tmp_path / name).read_text()
        (tmp_path / name).write_text(old.replace('"schema": 1', '"schema": 2'))
        for call in (Workdir.open, _create):
            with pytest.raises(WorkdirError, match=rf"{name} was written by a newer"):
                call(tmp_path)
        (tmp_path / name).write_text(old)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": {}}', '{"schema": 1}', "\x80"])
def test_damaged_config_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    _create(tmp_path).close()
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    for call in (Workdir.open, _create):
        with pytest.raises(WorkdirError, match=r"config\.json"):
            call(tmp_path)


def test_open_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WorkdirError, match="does not exist"):
        Workdir.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkdirError, match="is a file, not a workdir"):
        Workdir.open(tmp_path / "file")
    _create(tmp_path / "run").close()
    (tmp_path / "run" / "model.json").unlink()
    (tmp_path / "run" / "checkpoints").rmdir()
    with pytest.raises(WorkdirError, match=r"model\.json, checkpoints missing"):
        Workdir.open(tmp_path / "run")


def test_create_on_or_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(disk.DiskError, match="a file has that name"):
            _create(path)


@pytest.fixture
def plain_user() -> Iterator[Path]:
    """A folder of another user without write permission, seen by somebody who is not root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        folder.rmdir()


def test_no_permission(plain_user: Path) -> None:
    with pytest.raises(disk.DiskError, match="cannot be written: Permission denied"):
        _create(plain_user)
    with pytest.raises(disk.DiskError, match="cannot be made: Permission denied"):
        _create(plain_user / "run")


@contextlib.contextmanager
def _tmpfs(folder: Path, options: str) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root and CAP_SYS_ADMIN")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_read_only_file_system(tmp_path: Path) -> None:
    with _tmpfs(tmp_path, "ro"), pytest.raises(disk.DiskError, match="Read-only file system"):
        _create(tmp_path)


def test_full_file_system(tmp_path: Path) -> None:
    with _tmpfs(tmp_path, "size=1m"):
        (tmp_path / "ballast").write_bytes(bytes(2**20 - 8192))
        with pytest.raises(disk.DiskError, match="No space left"):
            _create(tmp_path)


def test_too_small_for_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda path: 10 * 2**20)
    _create(tmp_path, state_bytes=3 * 2**20).close()
    with pytest.raises(disk.DiskError, match=r"10\.0 MiB free.* needs 12\.0 MiB"):
        _create(tmp_path, state_bytes=4 * 2**20)


_QUOTA = """
import resource, sys
from efficient_layers.train.workdir import Workdir
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    Workdir.create(sys.argv[1], config={}, model={}, environment={})
except RuntimeError as error:
    print(error)
"""


def test_a_write_that_fails_stands_for_quotas_and_full_disks(tmp_path: Path) -> None:
    out = child.output(child.start(_QUOTA, str(tmp_path)))
    assert "cannot be written: File too large" in out
    assert list(tmp_path.iterdir()) == []


def test_json_replacement_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.write_json(tmp_path / "a.json", {"old": 1})

    def broken(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(disk.DiskError, match=r"a\.json cannot be written: No space left"):
        disk.write_json(tmp_path / "a.json", {"new": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
