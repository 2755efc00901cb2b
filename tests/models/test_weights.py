# SPDX-License-Identifier: Apache-2.0
"""Torch weights from files and dictionaries: what fits, what does not, and nothing by halves."""

import logging

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import efficient_layers as el
from efficient_layers.models import WeightsError

pytestmark = pytest.mark.fast

FIELDS = {"variant": "digits", "width": 0.35}


def create(**fields):
    return el.models.create("mobilenet_v2", rngs=nnx.Rngs(1), **{**FIELDS, **fields})


def equal(a, b):
    pairs = zip(jax.tree.leaves(nnx.state(a)), jax.tree.leaves(nnx.state(b)), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def trained():
    """A model whose every array differs from a fresh one's."""
    model = create()
    for leaf in jax.tree.leaves(nnx.state(model), is_leaf=lambda x: isinstance(x, nnx.Variable)):
        leaf.set_value(leaf[...] + 1)
    return model


@pytest.mark.parametrize("source", ["timm", "torchvision"])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_file_fills_the_model(trained, tmp_path, source, suffix):
    path, arrays = tmp_path / f"weights{suffix}", el.models.export_torch(trained, source)
    save_file(arrays, path) if suffix == ".safetensors" else np.savez(path, **arrays)
    assert equal(create(weights=path), trained)


def test_another_number_of_classes_keeps_a_fresh_head_and_says_so(trained, tmp_path, caplog):
    path = tmp_path / "weights.npz"
    np.savez(path, **el.models.export_torch(trained))
    with caplog.at_level(logging.WARNING):
        model = create(weights=path, num_classes=3)
    assert "classifier" in caplog.text
    assert "(3, 256)" in caplog.text
    fresh = create(num_classes=3)
    assert np.array_equal(model.classifier.kernel[...], fresh.classifier.kernel[...])
    assert np.array_equal(model.stem.conv.kernel[...], trained.stem.conv.kernel[...])
    features = create(weights=path, num_classes=0)
    assert np.array_equal(features.head.bn.mean[...], trained.head.bn.mean[...])


def test_all_differences_are_listed_in_one_error_and_nothing_is_loaded(trained):
    arrays = el.models.export_torch(trained, "timm")
    del arrays["bn1.bias"]
    arrays["conv_head.weight"] = arrays["conv_head.weight"][:-1]
    arrays["stranger.weight"] = np.zeros(3, np.float32)
    model, fresh = create(), create()
    with pytest.raises(WeightsError) as error:
        el.models.load_torch(model, arrays)
    for line in ("bn1.bias: missing", "conv_head.weight: shape", "stranger.weight: unexpected"):
        assert line in str(error.value)
    assert "3 of" in str(error.value)
    assert equal(model, fresh)


def test_weights_of_another_variant_are_refused(trained):
    with pytest.raises(WeightsError, match="do not fit MobileNetV2"):
        el.models.load_torch(create(width=0.5), el.models.export_torch(trained))


def test_pickles_and_damaged_files_are_refused(tmp_path):
    pickled, damaged = tmp_path / "model.pth", tmp_path / "model.safetensors"
    pickled.write_bytes(b"x")
    damaged.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="never read"):
        create(weights=pickled)
    with pytest.raises(ValueError, match="no whole safetensors file"):
        create(weights=damaged)
    with pytest.raises(FileNotFoundError, match="No file of weights"):
        create(weights=tmp_path / "nothing.npz")


def test_models_and_sources_without_names_are_refused(trained):
    with pytest.raises(ValueError, match="Linear is of no family"):
        el.models.export_torch(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="no weights named as in transformers"):
        el.models.export_torch(trained, "transformers")


def test_a_swapped_module_has_no_counterpart(trained):
    swapped = create(swap={"classifier": {"layer": "LowRankLinear", "rank": 4}})
    with pytest.raises(WeightsError, match="LowRankLinear"):
        el.models.load_torch(swapped, el.models.export_torch(trained))


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="mobilenetv3_large_100"):
        el.models.create("mobilenetv3_large_10", rngs=nnx.Rngs(0))
