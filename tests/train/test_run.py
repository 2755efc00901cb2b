# SPDX-License-Identifier: Apache-2.0
"""A whole run in one process: what it leaves behind, and what it refuses."""

import json

import jax
import numpy as np
import pytest

import efficient_layers as el
from efficient_layers import train
from efficient_layers.train.metrics import read
from tests.train.runs import tiny_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    result = train.train(tiny_config(), folder)
    return folder, result


def test_the_workdir_is_whole(finished):
    folder, result = finished
    assert result.reason == "finished"
    present = {path.name for path in folder.iterdir()}
    assert present >= {
        "config.json", "model.json", "environment.json", "checkpoints", "metrics.jsonl",
        "metrics.csv", "log.txt", "report.json", "report.html", "lock",
    }  # fmt: skip
    report = json.loads((folder / "report.json").read_text())
    assert report["schema"] == 1
    assert report["training"]["steps"] == 24
    assert 0 <= report["training"]["input_wait"] <= 1
    assert report["quality"]["test_examples"] == 360
    assert report["quality"]["validation_examples"] == 216
    assert report["history"][0]["step"] == 4
    assert sum(row["macs"] for row in report["cost"]["layers"]) == report["cost"]["macs"]


def test_el_load_gives_the_evaluated_model(finished):
    folder, result = finished
    model = el.load(folder)
    test = el.data.load("digits").test
    images = np.stack([test[i]["image"] for i in range(len(test))])
    labels = np.array([test[i]["label"] for i in range(len(test))])
    accuracy = float((np.asarray(model(images)).argmax(-1) == labels).mean())
    assert accuracy == pytest.approx(result.report["quality"]["test_accuracy"], abs=1e-6)
    assert train.score(folder)["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert train.score(folder, "validation")["examples"] == 216
    with pytest.raises(train.CheckpointError):
        el.load(folder, step=5)


def test_train_lines_are_window_means(finished):
    """Four steps a line: the mean learning rate of a line is the mean of its four."""
    folder, _ = finished
    lines = [line for line in read(folder / "metrics.jsonl") if "learning_rate" in line]
    schedule = train.build(tiny_config()).schedule
    for line in lines:
        steps = range(line["step"] - 4, line["step"])
        expected = np.mean([float(schedule(step)) for step in steps])
        assert line["learning_rate"] == pytest.approx(expected, rel=1e-5)


def test_another_configuration_is_refused_with_the_difference(finished):
    folder, _ = finished
    config = tiny_config()
    config.optimizer.learning_rate = 0.5
    with pytest.raises(train.ConfigMismatchError, match=r"optimizer\.learning_rate.*0\.003.*0\.5"):
        train.train(config, folder)


def test_a_finished_run_is_not_trained_again(finished):
    folder, _ = finished
    before = (folder / "metrics.jsonl").read_bytes()
    assert train.main(tiny_config(), str(folder), train.Options()) == 0
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_stop_after_steps_leaves_the_schedule_alone(finished, tmp_path):
    folder, _ = finished
    train.train(tiny_config(), tmp_path, train.Options(stop_after_steps=12))
    cut, whole = (read(path / "metrics.jsonl") for path in (tmp_path, folder))
    rate = {line["step"]: line["learning_rate"] for line in whole if "learning_rate" in line}
    for line in cut:
        if "learning_rate" in line:
            assert line["learning_rate"] == rate[line["step"]]
    assert max(line["step"] for line in cut) == 12


def test_no_compile_in_the_loop_and_donation(tmp_path, monkeypatch, no_compilation_cache):
    """Compilations are counted from the second step on; the first state's buffers are gone."""
    from jax import monitoring

    from efficient_layers.train.loop import Loop

    compiled: list[str] = []
    monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    original, states, counts = Loop._advance, [], []

    def advance(self, state, at):
        states.append(state)
        new = original(self, state, at)
        counts.append(len(compiled))
        return new

    monkeypatch.setattr(Loop, "_advance", advance)
    config = tiny_config(eval_every="24 steps")
    config.train.checkpoint.permanent_every = "24 steps"
    train.train(config, tmp_path)
    assert len(counts) == 24
    assert counts[-1] == counts[1]
    assert counts[0] > 0, "the listener saw no compilation at all"
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(states[0].params))


def test_time_to_target(tmp_path):
    options = train.Options(target="accuracy>=0.05", stop_at_target=True)
    result = train.train(tiny_config(), tmp_path, options)
    assert result.reason == "target"
    assert result.step == 12
    target = result.report["training"]["target"]
    assert target["step"] == 12
    assert 0 < target["compile_s"] < target["seconds"]


def test_overfit_batches_repeats_the_same_rows(tmp_path):
    result = train.train(tiny_config(), tmp_path, train.Options(overfit_batches=2))
    assert result.report["quality"]["validation_examples"] == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.batch_size": 5000}, "more than the 1221 training examples"),
        ({"train.accumulate": 5}, "train.accumulate must divide data.batch_size=32; got 5"),
        ({"train.select": "newest"}, "'last' or 'best'; got 'newest'"),
        ({"train.checkpoint.best_metric": "f1"}, "no metric 'f1'; there is accuracy"),
        ({"data.name": "tfds:cifar10", "data.data_dir": "/nowhere"}, "cifar10"),
        ({"data.name": "digit"}, "digits"),
        ({"model.name": "mobilenet_v22"}, "mobilenet_v2"),
        ({"model.widht": 0.1}, "config.model: .* no field 'widht'. Did you mean 'width'"),
        ({"model.num_classes": "many"}, "config.model: Field 'num_classes' .* expects int"),
        ({"objective.name": "classify"}, "classification"),
        ({"optimizer.name": "adamww"}, "adamw"),
        ({"train.duration": "5 parsecs"}, "'30 epochs'"),
        ({"train.log_to": ("mlflow",)}, "knows tensorboard, wandb; got 'mlflow'"),
        ({"mesh": "data:3"}, "1 cpu device"),
        ({"data.crop": "padd"}, "'none', 'pad' or 'random_resized'"),
    ],
)
def test_bad_input_is_refused_before_a_workdir_is_made(change, message, tmp_path):
    config = tiny_config()
    with config.unlocked():
        if change.get("model.name"):
            config.model = {"name": change.pop("model.name")}
        config.update_from_flattened_dict(change)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_dry_run_prints_shapes_shardings_cost_and_memory():
    page = train.dry_run(tiny_config())
    for part in ("params/dense/kernel", "replicated", "MACs an example", "step memory a device"):
        assert part in page


def test_dry_run_without_the_data_set_says_so():
    config = tiny_config()
    config.data.name = "tfds:cifar10"
    config.data.data_dir = "/nowhere"
    page = train.dry_run(config)
    assert "Stand-in data, so numbers of examples and steps are not the real ones" in page
    assert "32 x 32x32x3" in page


@pytest.mark.slow
def test_smoke_runs_any_config_on_stand_in_data(tmp_path):
    config = tiny_config()
    config.data.name = "tfds:cifar10"
    config.data.data_dir = "/nowhere"
    result = train.train(config, tmp_path, train.Options(smoke=True, stop_after_steps=2))
    assert result.step == 2
    assert (tmp_path / "report.html").exists()
