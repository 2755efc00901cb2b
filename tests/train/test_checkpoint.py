# SPDX-License-Identifier: Apache-2.0
"""Saves outlive donation, crashes and bad disks; restores notice every changed byte."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers.train import disk, step_folder
from efficient_layers.train.checkpoint import (
    Checkpointer,
    CheckpointError,
    CheckpointMismatchError,
)
from tests.train import child

pytestmark = pytest.mark.fast


def _state(scale: float = 1.0) -> dict[str, Any]:
    return {
        "step": jnp.asarray(7, jnp.int32),
        "params": {"stem": {"kernel": scale * jnp.arange(12.0).reshape(3, 4)}},
        "opt_state": [(jnp.ones((4,), jnp.bfloat16), jnp.zeros((0, 2))), ()],
        "key": jnp.asarray([3, 2**32 - 1], jnp.uint32),
        "flag": np.array(True),
    }


def _same(left: Any, right: Any) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def _two_steps(directory: Path) -> None:
    """Steps 1 and 2, both kept."""
    with Checkpointer(directory, permanent_every_steps=1) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, _state(step), {"at": step})


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_round_trip_keeps_every_bit_dtype_and_kind(tmp_path: Path) -> None:
    extra = {"iterator": {"epoch": 3}, "clock": 1.5, "names": ["a"]}
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.save(7, _state(), extra, force=True)
        step, state, back = checkpointer.restore(_state(0.0))
    assert (step, back) == (7, extra)
    assert _same(state, _state())
    assert jax.tree.structure(state) == jax.tree.structure(_state())
    assert isinstance(state["flag"], np.ndarray)
    assert isinstance(state["step"], jax.Array)
    assert state["step"].committed == _state()["step"].committed


def test_abstract_template_and_restore_in_a_new_object(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(7, _state(), {}, force=True)
    template = jax.eval_shape(_state)
    template["flag"] = np.array(False)
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert _same(checkpointer.restore(template)[1], _state())


def test_read_needs_no_template(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(7, _state(), {"a": 1}, force=True)
        step, tree, extra = checkpointer.read()
    assert (step, extra) == (7, {"a": 1})
    np.testing.assert_array_equal(
        tree["params"]["stem"]["kernel"], _state()["params"]["stem"]["kernel"]
    )
    assert tree["opt_state"]["0"]["1"].shape == (0, 2)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tree))


def test_state_may_be_donated_and_extra_changed_right_after_save(tmp_path: Path) -> None:
    state = {"w": jnp.arange(200_000, dtype=jnp.float32)}
    extra = {"offset": [1]}
    expected = np.array(state["w"])
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2, tree), donate_argnums=0)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, extra, force=True)
        doubled = double(state)
        extra["offset"].append(2)
        assert state["w"].is_deleted()
        _, back, extra_back = checkpointer.restore(doubled)
    np.testing.assert_array_equal(back["w"], expected)
    assert extra_back == {"offset": [1]}


def test_restored_arrays_can_be_donated(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"w": jnp.ones(1000)}, {}, force=True)
        state = checkpointer.restore({"w": jnp.ones(1000)})[1]
    jax.jit(lambda tree: {"w": tree["w"] + 1}, donate_argnums=0)(state)
    assert state["w"].is_deleted()


def test_keeps_the_newest_the_permanent_and_the_best(tmp_path: Path) -> None:
    accuracy = {1: 0.3, 2: 0.9, 3: 0.5, 4: 0.9, 5: float("nan"), 6: 0.1, 7: 0.2}
    with Checkpointer(tmp_path, permanent_every_steps=3, best_metric="accuracy") as checkpointer:
        for step, value in accuracy.items():
            checkpointer.save(step, _state(step), {}, metrics={"accuracy": value}, force=True)
        checkpointer.wait()
        assert checkpointer.steps() == [2, 3, 6, 7]
        assert (checkpointer.best_step(), checkpointer.latest_step()) == (2, 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3", "6", "7"]
    with Checkpointer(tmp_path, permanent_every_steps=3, best_metric="accuracy") as checkpointer:
        assert (checkpointer.best_step(), checkpointer.steps()) == (2, [2, 3, 6, 7])
        checkpointer.save(8, _state(8), {}, metrics={"accuracy": 0.95})
        checkpointer.wait()
        assert checkpointer.steps() == [3, 6, 8]
    with Checkpointer(tmp_path, read_only=True) as checkpointer:  # reads the metric's name
        assert checkpointer.restore(_state(), step="best")[0] == 8


def test_best_by_minimum_and_error_without_any(tmp_path: Path) -> None:
    with Checkpointer(tmp_path, best_metric="loss", best_mode="min") as checkpointer:
        checkpointer.save(1, _state(), {}, force=True)
        with pytest.raises(CheckpointError, match="no checkpoint carries the metric"):
            checkpointer.restore(_state(), step="best")
        assert checkpointer.save(2, _state(), {}, metrics={"loss": 2.0})
        assert not checkpointer.save(3, _state(), {}, metrics={"loss": 2.5})
        assert checkpointer.save(4, _state(), {}, metrics={"loss": 1.5})
        checkpointer.wait()
        assert checkpointer.best_step() == 4


def test_due_by_time_and_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    checkpointer = Checkpointer(tmp_path, temporary_every_s=10, permanent_every_steps=50)
    assert not checkpointer.due(49)
    assert checkpointer.due(50)
    now = 111.0
    assert checkpointer.due(49)
    assert checkpointer.save(49, _state(), {})
    checkpointer.wait()
    assert not checkpointer.due(49)
    assert not checkpointer.due(51)
    now = 122.0
    assert checkpointer.due(51)
    checkpointer.close()


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpointer:
        for scale in (1.0, 5.0):
            checkpointer.save(3, _state(scale), {"scale": scale}, force=True)
        _, state, extra = checkpointer.restore(_state())
    assert extra == {"scale": 5.0}
    assert _same(state, _state(5.0))
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_latest_is_the_last_written_after_a_return_to_an_earlier_step(tmp_path: Path) -> None:
    _two_steps(tmp_path)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.restore(_state(), step=1)
        checkpointer.save(1, _state(9.0), {}, force=True)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step() == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_every_changed_file_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    _two_steps(tmp_path / "good")
    names = [path.relative_to(tmp_path / "good") for path in _files(tmp_path / "good" / "2")]
    names = [name for name in names if (tmp_path / "good" / name).stat().st_size]
    assert len(names) >= 6
    for number, name in enumerate(names):
        directory = tmp_path / f"{damage}{number}"
        shutil.copytree(tmp_path / "good", directory)
        _damage(directory / name, damage)
        caplog.clear()
        with Checkpointer(directory, read_only=True) as checkpointer:
            with pytest.raises(CheckpointError, match=r"damaged|missing|no complete"):
                checkpointer.restore(_state(), step=2)
            step, state, extra = checkpointer.restore(_state())
        assert (step, extra) == (1, {"at": 1}), name
        assert _same(state, _state(1))
        assert "step 2 is damaged" in caplog.text
        assert "step 1 is used instead" in caplog.text


def _damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "remove":
        path.unlink()
        return
    if how == "flip":
        content[len(content) // 2] ^= 0x10
    else:
        del content[len(content) // 2 :]
    path.write_bytes(content)


def test_writer_puts_the_damaged_one_aside_and_goes_on(tmp_path: Path) -> None:
    _two_steps(tmp_path)
    (tmp_path / "2" / "manifest.json").write_text("{")
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore(_state())[0] == 1
        assert (tmp_path / "2.corrupt").is_dir()
        checkpointer.save(2, _state(2), {}, force=True)
        checkpointer.wait()
        assert checkpointer.restore(_state())[0] == 2
    assert not (tmp_path / "2.corrupt").exists()


def test_nothing_usable_is_an_error_that_says_why(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(CheckpointError, match="no usable checkpoint"):
            checkpointer.restore(_state())
        checkpointer.save(1, _state(), {}, force=True)
        checkpointer.wait()
        _damage(next(iter((tmp_path / "1" / "state").rglob("manifest.ocdbt"))), "flip")
        with pytest.raises(CheckpointError, match=r"step 1: state/.* has changed"):
            checkpointer.restore(_state())
        with pytest.raises(CheckpointError, match="no complete checkpoint of step 5"):
            checkpointer.restore(_state(), step=5)


def test_newer_schema_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_folder.Manifest, "__init__", _newer(step_folder.Manifest.__init__))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, _state(), {}, force=True)
    monkeypatch.undo()
    with (
        Checkpointer(tmp_path, read_only=True) as checkpointer,
        pytest.raises(CheckpointError, match="newer efficient_layers"),
    ):
        checkpointer.restore(_state())


def _newer(init: Any) -> Any:
    return lambda self, **fields: init(self, **{**fields, "schema": 99})


def test_mismatch_lists_every_entry_by_path_and_is_no_fallback(tmp_path: Path) -> None:
    _two_steps(tmp_path)
    template = _state()
    template["params"]["stem"]["kernel"] = jnp.zeros((3, 5))
    template["params"]["head"] = {"bias": jnp.zeros(2)}
    template["key"] = jnp.zeros(2, jnp.int32)
    del template["flag"]
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.raises(CheckpointMismatchError) as caught,
    ):
        checkpointer.restore(template)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert (
        "params/head/bias float32[2]" in lines[lines.index("missing in the checkpoint (1):") :][1]
    )
    assert "flag bool[]" in lines
    assert "params/stem/kernel: checkpoint float32[3,4], here float32[3,5]" in lines
    assert "key: checkpoint uint32[2], here int32[2]" in lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ({"k": jax.random.key(0)}, TypeError, "typed PRNG key"),
        ({"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, ValueError, "twice"),
        (jnp.ones(1), ValueError, "non-empty"),
    ],
)
def test_states_that_cannot_be_named_are_refused(
    tmp_path: Path, state: Any, error: type[Exception], words: str
) -> None:
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(error, match=words):
        checkpointer.save(1, state, {}, force=True)


def test_extra_must_be_json(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(TypeError, match="JSON"):
        checkpointer.save(1, _state(), {"a": b"bytes"}, force=True)


def test_read_only_changes_nothing(tmp_path: Path) -> None:
    _two_steps(tmp_path)
    (tmp_path / "3.tmp").mkdir()
    before = [(path, path.stat().st_mtime_ns) for path in _files(tmp_path)]
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert checkpointer.steps() == [1, 2]
        with pytest.raises(CheckpointError, match="read-only"):
            checkpointer.save(3, _state(), {}, force=True)
    assert [(path, path.stat().st_mtime_ns) for path in _files(tmp_path)] == before
    assert (tmp_path / "3.tmp").is_dir()
    with Checkpointer(tmp_path / "nowhere", read_only=True) as checkpointer:
        assert checkpointer.steps() == []
    assert not (tmp_path / "nowhere").exists()


def test_a_reader_sees_what_is_written_after_it_was_opened(tmp_path: Path) -> None:
    _two_steps(tmp_path)
    with Checkpointer(tmp_path, read_only=True) as reader, Checkpointer(tmp_path) as writer:
        writer.save(3, _state(3), {}, force=True)
        writer.wait()
        assert reader.restore(_state())[0] == 3


def test_leftovers_of_a_killed_writer_are_cleared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _two_steps(tmp_path)
    (tmp_path / "3.tmp" / "state").mkdir(parents=True)
    (tmp_path / "2").rename(tmp_path / "2.old")  # killed between the two renames of a swap
    (tmp_path / "9.removed").mkdir()
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == [1, 2]
        assert checkpointer.restore(_state())[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    assert "an unfinished save" in caplog.text


def test_a_failed_save_is_logged_and_the_previous_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Checkpointer(tmp_path, temporary_every_s=1000) as checkpointer:
        checkpointer.save(1, _state(1), {}, force=True)
        checkpointer.wait()
        monkeypatch.setattr(disk, "free_bytes", lambda path: 3)
        checkpointer.save(2, _state(2), {}, force=True)
        with pytest.raises(CheckpointError, match=r"step 2 could not be written"):
            checkpointer.wait()
        assert "step 1 is intact" in caplog.text
        assert "Training goes on" in caplog.text
        assert [path.name for path in tmp_path.iterdir()] == ["1"]
        assert checkpointer.restore(_state())[0] == 1
        assert not checkpointer.due(3)
        now = time.monotonic()
        with monkeypatch.context() as later:
            later.setattr(time, "monotonic", lambda: now + 61)
            assert checkpointer.due(3)  # tried again after a minute, not after 1,000 s
        monkeypatch.undo()
        checkpointer.save(2, _state(2), {}, force=True)
        checkpointer.wait()
        assert checkpointer.steps() == [2]


def test_too_little_space_is_an_error_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda path: 2 * 2**20)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.check_space({"w": np.zeros(100)})
    with pytest.raises(disk.DiskError, match=r"2.0 MiB free.* needs 3.0 MiB"):
        checkpointer.check_space({"w": jax.ShapeDtypeStruct((2**18,), jnp.float32)})
    checkpointer.close()


@pytest.mark.parametrize("fields", [{"best_mode": "up"}, {"permanent_every_steps": 0}])
def test_bad_settings(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Checkpointer(tmp_path, **fields)


def test_save_blocks_the_loop_only_for_the_copy(tmp_path: Path) -> None:
    """150 arrays of 1,000: 3 ms measured; the bound only rules out a synchronous write."""
    state = {f"w{i}": jnp.ones(1000) for i in range(150)}
    blocked, whole = [], []
    with Checkpointer(tmp_path) as checkpointer:
        for step in range(4):
            start = time.perf_counter()
            checkpointer.save(step, state, {}, force=True)
            blocked.append(time.perf_counter() - start)
            checkpointer.wait()
            whole.append(time.perf_counter() - start)
    assert min(blocked) < 0.25 * min(whole)


_SHARDED = """
import sys, jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from efficient_layers.train.checkpoint import Checkpointer
directory, n = sys.argv[1], len(jax.devices())
mesh = jax.make_mesh((n,), ("fsdp",), axis_types=(AxisType.Auto,))
specs = {"rows": P("fsdp"), "columns": P(None, "fsdp"), "whole": P()}
values = {k: np.arange(256, dtype=np.float32).reshape(16, 16) + i for i, k in enumerate(specs)}
shardings = {k: NamedSharding(mesh, s) for k, s in specs.items()}
if n == 8:
    with Checkpointer(directory) as c:
        c.save(5, jax.device_put(values, shardings), {}, force=True)
template = {k: jax.ShapeDtypeStruct((16, 16), np.float32, sharding=shardings[k]) for k in specs}
with Checkpointer(directory, read_only=True) as c:
    state = c.restore(template)[1]
for k in specs:
    assert state[k].sharding == shardings[k]
    np.testing.assert_array_equal(state[k], values[k])
print(n, *(state[k].addressable_shards[-1].data.shape for k in ("rows", "columns")))
"""


def test_saved_on_8_devices_restored_on_8_4_and_1(tmp_path: Path) -> None:
    assert child.output(child.start(_SHARDED, str(tmp_path), devices=8)) == "8 (2, 16) (16, 2)\n"
    readers = [child.start(_SHARDED, str(tmp_path), devices=n) for n in (4, 1)]
    assert [child.output(reader) for reader in readers] == [
        "4 (4, 16) (16, 4)\n",
        "1 (16, 16) (16, 16)\n",
    ]


_WRITER = """
import sys, time, numpy as np
from efficient_layers.train import checkpoint, disk
stage = sys.argv[2]
def stop(*_):
    print("now", flush=True)
    time.sleep(100)
with checkpoint.Checkpointer(sys.argv[1]) as c:
    for step in range(1, 1000):
        if step == 3 and stage == "before the manifest":
            c.wait()
            disk.sums = stop
        c.save(step, {"w": np.full(300_000, step, np.float32)}, {"at": step}, force=True)
        if step == 3 and stage == "while writing":
            print("now", flush=True)
        if step == 3 and stage == "any time":
            print("now", flush=True)
"""


@pytest.mark.parametrize(
    ("stage", "delay"), [("while writing", 0.01), ("before the manifest", 0.0), ("any time", 0.33)]
)
def test_kill_9_during_a_save_leaves_a_good_one(tmp_path: Path, stage: str, delay: float) -> None:
    process = child.start(_WRITER, str(tmp_path), stage)
    assert child.line(process) == "now"
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    child.end(process)
    with Checkpointer(tmp_path) as checkpointer:
        step, state, extra = checkpointer.restore({"w": np.zeros(300_000, np.float32)})
    assert step >= 2
    assert extra == {"at": step}
    assert set(state["w"]) == {step}
    assert all(path.name.isdecimal() for path in tmp_path.iterdir())


_FULL = """
import logging, resource, sys, numpy as np
from efficient_layers.train.checkpoint import Checkpointer, CheckpointError
c = Checkpointer(sys.argv[1])
state = {"w": np.random.default_rng(0).standard_normal(500_000)}
c.save(1, state, {}, force=True)
c.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
c.save(2, state, {}, force=True)
try:
    c.close()
except CheckpointError as error:
    print(error)
print(c.steps())
"""


def test_a_write_that_fails_half_way_is_reported(tmp_path: Path) -> None:
    """A file-size limit stands for a disk that fills up during the save."""
    lines = child.output(child.start(_FULL, str(tmp_path))).splitlines()
    assert "The checkpoint of step 2 could not be written" in lines[0]
    assert lines[-1] == "[1]"
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore({"w": np.zeros(500_000)})[0] == 1
