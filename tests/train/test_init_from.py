# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning from another workdir or a file of weights: what comes over, what is refused."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import efficient_layers as el
from efficient_layers import train
from tests.train.runs import tiny_config

TINY = {"stages": ((1, 8, 1, 1), (2, 8, 1, 2)), "stem_features": 8, "head_features": 16}


def _config(path, **fields):
    config = tiny_config()
    with config.unlocked():
        config.model.update(fields)
    config.init_from = str(path)
    return config


def _arrays(experiment):
    return {**experiment.params, **experiment.rest}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A checkpoint of numbers that no fresh model has."""
    path = tmp_path_factory.mktemp("pretrained")
    experiment = train.build(_config(""))
    state = experiment.init()
    state = dataclasses.replace(state, ema=jax.tree.map(lambda x: x + 1, state.ema))
    settings = {"config": experiment.config.to_dict(), "model": experiment.description}
    with (
        train.Workdir.create(path, **settings, environment={}) as folder,
        train.Checkpointer(folder.checkpoints) as checkpointer,
    ):
        checkpointer.save(1, state, {}, force=True)
    return path


def test_weights_and_statistics_come_from_a_workdir(workdir):
    _, params, rest = train.split(el.load(workdir))
    built = train.build(_config(workdir))
    number = len(params | rest)
    assert built.loaded == (f"init_from {workdir}: loaded {number} of {number} arrays",)
    for name, value in _arrays(built).items():
        np.testing.assert_array_equal(value, (params | rest)[name], err_msg=name)
    assert any("mean" in name for name in rest)


def test_a_head_of_another_shape_is_left_fresh(workdir):
    fresh = _arrays(train.build(_config("", num_classes=3)))
    built = train.build(_config(workdir, num_classes=3))
    _, params, rest = train.split(el.load(workdir))
    for name, value in _arrays(built).items():
        expected = fresh if name.startswith("classifier") else params | rest
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert sorted(line.split(":")[0] for line in built.loaded[1:]) == [
        "classifier/bias",
        "classifier/kernel",
    ]
    assert "shape there (26, 10), here (26, 3)" in built.loaded[-1]


@pytest.mark.slow
def test_the_run_says_what_it_loaded(workdir, tmp_path):
    config = _config(workdir, num_classes=12)
    train.train(config, tmp_path / "run", train.Options(stop_after_steps=1))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "arrays" in log
    assert "classifier/kernel: not loaded" in log


def test_another_model_is_refused_before_work_starts(workdir, tmp_path):
    config = _config(workdir, width=0.1)
    with pytest.raises(ValueError, match=r"convs/2/.*shape there (.|\n)*config.json"):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_torch_weights_come_from_a_file(tmp_path):
    model = el.models.create("mobilenet_v2", **TINY, in_channels=1, num_classes=4, rngs=nnx.Rngs(7))
    path = tmp_path / "weights.safetensors"
    save_file(el.models.export_torch(model), path)
    config = _config(path)
    with config.unlocked():
        config.model = {"name": "mobilenet_v2", **TINY}
    built = train.build(config)
    assert len(built.loaded) == 3, built.loaded
    kernel = jax.tree.leaves(nnx.state(model.stem.conv))[0]
    np.testing.assert_array_equal(built.params["stem/conv/kernel"], kernel)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("nowhere", ValueError, "Expected a workdir of launch.train, or"),
        (".", train.WorkdirError, "not a complete workdir"),
        ("weights.bin", ValueError, "safetensors"),
    ],
)
def test_paths_that_hold_no_weights(path, error, message, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(error, match=message):
        train.build(_config(tmp_path / path))
