# SPDX-License-Identifier: Apache-2.0
"""Every file of `configs/`: each variant is a model that exists, and `--smoke` trains it."""

import importlib.util
from pathlib import Path

import pytest

import efficient_layers as el
from efficient_layers import train
from efficient_layers.train.objective import make_objective
from efficient_layers.train.optimizer import optimizer, optimizer_settings

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
# It reads pairs of texts, and data/ has none yet.
WITHOUT_DATA = {"seq2seq"}
# Small enough to compile in seconds on one core: what a recipe says of the model stays.
IMAGE_SIZE = 64


def _module(path):
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _variants():
    """(file, variant) of all; None is what the file gives unasked."""
    for path in FILES:
        yield path, None
        for variant in getattr(_module(path), "VARIANTS", ()):
            yield path, variant


def _config(path, variant=None):
    get_config = _module(path).get_config
    return get_config() if variant is None else get_config(variant)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("path", "variant"), [pytest.param(*one, id=f"{one[0].stem}:{one[1]}") for one in _variants()]
)
def test_a_variant_is_a_model_that_exists(path, variant):
    config = _config(path, variant)
    fields = {name: value for name, value in config.model.items() if name != "name"}
    assert el.models.describe(config.model.name, **fields)["name"] in el.models.registry.FAMILIES
    settings = optimizer_settings(config.optimizer.to_dict())
    optimizer(settings, total_steps=100_000, steps_per_epoch=1000.0, batch_size=64)
    make_objective(config.objective)


@pytest.mark.fast
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_its_command_and_its_published_number(path):
    module = _module(path)
    assert f"python -m launch.train --config=configs/{path.name}" in module.__doc__
    if hasattr(module, "PUBLISHED"):
        assert module.PUBLISHED.keys() <= module.VARIANTS.keys()
    if hasattr(module, "VARIANTS"):
        with pytest.raises(ValueError, match=f"{path.stem}.py:nothing: choose one of"):
            module.get_config("nothing")


@pytest.mark.fast
def test_every_family_has_a_recipe():
    named = {el.models.describe(_config(path).model.name)["name"] for path in FILES}
    named |= {"menghani_cnn"} if (FILES[0].parent / "cifar10.py").exists() else set()
    assert el.models.registry.FAMILIES.keys() - named <= WITHOUT_DATA


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_smoke(path, tmp_path):
    """`launch.train --smoke`; smaller images, no processes, no emulated bfloat16."""
    config = _config(path)
    config.report.batches = (1,)
    config.data.workers = 0
    config.train.precision = "params=f32,compute=f32,output=f32"
    config.data.image_size = min(config.data.image_size, IMAGE_SIZE)
    result = train.train(config, tmp_path, train.Options(smoke=True, stop_after_steps=2))
    assert result.step == 2
    assert result.report["quality"]["test_loss"] > 0
