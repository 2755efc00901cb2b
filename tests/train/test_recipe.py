# SPDX-License-Identifier: Apache-2.0
"""Recipes: phases that compress and train, resumed, loaded by another process, judged."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers import train
from efficient_layers.train import recipe as recipes
from tests.train.runs import ROOT, tiny_config

REMOVE = {"technique": "RemoveChannels", "path": "**", "ratio": 0.5}
PRUNE = {"technique": "Prune", "path": "**", "sparsity": 0.5}
INT8 = {"technique": "Quantize", "path": "**", "activations": "static", "keep_ends": False}
TUNE = {"train": {"duration": "6 steps", "ema_decay": 0.5}, "optimizer": {"learning_rate": 1e-2}}


def recipe(**phases):
    made = train.default_recipe()
    with made.unlocked():
        for name, settings in phases.items():
            made.phases[name] = settings
    made.order = tuple(phases)
    made.calibration.batches, made.calibration.batch_size = 2, 16
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A workdir of an untrained model."""
    path = tmp_path_factory.mktemp("source")
    experiment = train.build(tiny_config())
    settings = {"config": experiment.config.to_dict(), "model": experiment.description}
    with (
        train.Workdir.create(path, **settings, environment={}) as folder,
        train.Checkpointer(folder.checkpoints) as checkpointer,
    ):
        checkpointer.save(0, experiment.init(), {}, force=True)
    return path


@pytest.fixture(scope="module")
def chain(source, tmp_path_factory):
    """Half the channels removed, trained on, stored as int8; what was said on the way."""
    said: list[str] = []
    made = recipe(remove={"apply": (REMOVE,)}, tune={"train": TUNE}, store={"apply": (INT8,)})
    made.packed = True
    out = tmp_path_factory.mktemp("out") / "chain"
    result = train.run_recipe(source, made, out, say=said.append)
    return out, made, result, said


def _arrays(model):
    _, params, rest = train.split(model)
    return params | rest


def test_each_phase_is_a_workdir(source, chain):
    out, _, result, said = chain
    assert result.reason == "finished"
    assert [line.split(":")[0] for line in said] == [
        "phase 1 of 3, remove",
        "phase 2 of 3, tune",
        "phase 3 of 3, store",
    ]
    sizes = [
        el.measure.cost(el.load(path), np.zeros((1, 8, 8, 1), np.float32))
        for path in (source, out / "phases/0-remove", out / "phases/1-tune", out)
    ]
    assert sizes[0].params > sizes[1].params == sizes[2].params
    assert sizes[3].weight_bytes < sizes[2].weight_bytes / 2
    removed, tuned = (_arrays(el.load(out / "phases" / name)) for name in ("0-remove", "1-tune"))
    assert any((removed[name] != tuned[name]).any() for name in removed)


def test_the_report_has_the_verdict(source, chain):
    out, _, result, _ = chain
    report = json.loads((out / "report.json").read_text())["compression"]
    assert report == result.report["compression"]
    before, after = report["verdict"]["before"], report["verdict"]["after"]
    x = np.zeros((1, 8, 8, 1), np.float32)
    assert before["params"] == el.measure.cost(el.load(source), x).params
    assert after["weight_bytes"] == el.measure.cost(el.load(out), x).weight_bytes
    assert any(kind.startswith("int8") for kind in {**after["dots"], **after["convolutions"]})
    assert "test_accuracy" in after["quality"]
    assert "smaller" in report["verdict"]["words"]
    page = (out / "report.html").read_text()
    assert "What compression did" in page
    assert report["verdict"]["words"].split(":")[0] in page
    tuned = json.loads((out / "phases/1-tune/report.json").read_text())
    assert not any(name.startswith("test_") for name in tuned["quality"])  # read once, at the end


def test_the_packed_file_is_the_model(chain):
    out, _, result, _ = chain
    file = out / "packed.elp"
    assert result.report["compression"]["packed_bytes"] == file.stat().st_size
    about = el.compress.read_about(file)
    assert about["edits"] == json.loads((out / "model.json").read_text())["edits"]
    create = about["create"]
    base = nnx.eval_shape(
        lambda: el.models.create(create["name"], **create["fields"], rngs=nnx.Rngs(0))
    )
    read = el.compress.load_packed(el.compress.rebuild(base, about["edits"]), file)
    jax.tree.map(np.testing.assert_array_equal, _arrays(read), _arrays(el.load(out)))


@pytest.mark.slow
def test_another_process_loads_it_bit_equal(chain, tmp_path):
    out, *_ = chain
    x = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np, efficient_layers as el\n"
        "model = el.load(sys.argv[1])\n"
        "np.save(sys.argv[3], np.asarray(model(np.load(sys.argv[2]))))"
    )
    files = [str(out), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    subprocess.run([sys.executable, "-c", code, *files], cwd=ROOT, check=True, timeout=240)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), el.load(out)(x))


def test_done_phases_are_not_done_again(source, chain):
    out, made, result, _ = chain
    said: list[str] = []
    again = train.run_recipe(source, made, out, say=said.append)
    assert all(line.endswith("done before") for line in said)
    assert again.report == result.report


def test_times_are_measured_anew_on_demand(chain, source):
    out, *_ = chain
    before = json.loads((out / "report.json").read_text())["compression"]
    after = train.judge_again(out)["compression"]
    kept = before["verdict"]["after"], after["verdict"]["after"]
    assert kept[0].pop("latency_ms") != kept[1].pop("latency_ms")
    assert kept[0] == kept[1]
    assert after["packed_bytes"] == before["packed_bytes"]
    with pytest.raises(ValueError, match="no result"):
        train.judge_again(source)


def test_another_recipe_is_refused_in_the_same_folder(source, chain):
    out, *_ = chain
    with pytest.raises(train.ConfigMismatchError, match="another recipe"):
        train.run_recipe(source, recipe(prune={"apply": (PRUNE,)}), out)
    with pytest.raises(train.WorkdirError, match="another run"):
        train.run_recipe(source, recipe(prune={"apply": (PRUNE,)}), source)


@pytest.mark.slow
def test_pruned_weights_stay_zero_in_every_later_run(source, tmp_path):
    made = recipe(prune={"apply": (PRUNE,)}, tune={"train": TUNE})
    train.run_recipe(source, made, tmp_path / "out")
    pruned = _arrays(el.load(tmp_path / "out/phases/0-prune"))
    masks = {name: value != 0 for name, value in pruned.items() if name.endswith("kernel")}
    assert all(0.4 < mask.mean() < 0.6 for mask in masks.values())

    config = tiny_config(duration="4 steps", eval_every="4 steps")
    config.init_from = str(tmp_path / "out")
    train.train(config, tmp_path / "on")
    for folder in ("out", "on"):  # the average of the weights is what is shipped
        found = _arrays(el.load(tmp_path / folder))
        for name, mask in masks.items():
            np.testing.assert_array_equal(found[name] != 0, mask, err_msg=f"{folder} {name}")
            assert (found[name] != pruned[name]).any()


@pytest.mark.slow
def test_gradual_pruning_by_configuration(tmp_path):
    config = tiny_config(duration="8 steps", eval_every="8 steps")
    config.sparsity.update(
        {"name": "gradual", "sparsity": 0.75, "every": "1 step", "end": "6 steps"}
    )
    train.train(config, tmp_path / "run")
    found = _arrays(el.load(tmp_path / "run"))
    kernels = [value for name, value in found.items() if name.endswith("kernel")]
    assert len(kernels) > 3
    for value in kernels:
        assert abs((value == 0).mean() - 0.75) < 0.02


@pytest.mark.slow
def test_an_interrupted_phase_goes_on(source, tmp_path):
    made = recipe(prune={"apply": (PRUNE,)}, tune={"train": TUNE})
    first = train.run_recipe(source, made, tmp_path / "out", max_runtime_s=1e-3)
    assert first.report is None
    whole = train.run_recipe(source, made, tmp_path / "out")
    assert whole.reason == "finished"
    direct = train.run_recipe(source, made, tmp_path / "direct")
    assert direct.report is not None
    one, other = _arrays(el.load(tmp_path / "out")), _arrays(el.load(tmp_path / "direct"))
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ({}, "order names its phases"),
        ({"a": {}}, "either an apply"),
        ({"a": {"apply": (PRUNE,), "train": {}}}, "either an apply"),
        ({"a": {"apply": ({"technique": "Prunes"},)}}, "Did you mean 'Prune'"),
        ({"a": {"apply": ({"technique": "Prune", "path": "**", "sparse": 1},)}}, "'sparsity'"),
        ({"a": {"apply": ({**PRUNE, "sparsity": 2},)}}, r"sparsity in \[0, 1\)"),
        ({"a": {"apply": ({"technique": "Prune", "sparsity": 0.5},)}}, "path"),
        ({"a": {"train": {"train": {"durations": 3}}}}, "duration"),
    ],
)
def test_bad_recipes_are_refused_before_work(source, tmp_path, phases, message):
    with pytest.raises(ValueError, match=message):
        train.run_recipe(source, recipe(**phases), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_default_recipe_is_locked():
    with pytest.raises(KeyError):
        train.default_recipe().update({"calibrations": 3})


def test_every_technique_can_be_named():
    assert {"Prune", "Quantize", "Finalize"} <= recipes.techniques().keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "gradul"}, "Did you mean 'gradual'"),
        ({"name": "gradual", "sparsity": 1.5}, r"sparsity in \[0, 1\)"),
        ({"name": "gradual", "method": "wanda"}, "gradual ranks by"),
        ({"name": "rigl", "fraction": 2.0}, "fraction in"),
        ({"name": "gradual", "end": "soon"}, "a duration must look like"),
    ],
)
def test_bad_sparsity_is_refused(settings, message):
    config = tiny_config()
    config.sparsity.update(settings)
    with pytest.raises(ValueError, match=message):
        train.build(config)
