# SPDX-License-Identifier: Apache-2.0
"""Any model's own arrays, by path, in a safetensors file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from efficient_layers import layers, models
from efficient_layers.models import WeightsError
from efficient_layers.models.entries import arrays_of

pytestmark = pytest.mark.fast


class Mixed(nnx.Module):
    """A tied layer, RNG state, integers of 4 bits, packed codes, bfloat16, an empty array."""

    def __init__(self, seed: int = 0):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(3, 3, rngs=rngs)
        self.tied = self.first
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(3, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, rngs=rngs)
        self.int4 = nnx.Variable(jnp.arange(seed - 8, seed).astype(jnp.int4))
        packed = jnp.asarray([[0x21, 0x0F]], jnp.uint8) + jnp.uint8(seed)
        self.codes = layers.QuantParam(packed, logical_shape=(1, 3))
        self.list = nnx.List([nnx.Param(jnp.full(3, seed + i)) for i in range(11)])
        self.cache = nnx.Cache(jnp.zeros((2, 0, 4)))
        self.key = nnx.Variable(jax.random.key(seed, impl="rbg"))


def same(first: nnx.Module, second: nnx.Module) -> None:
    assert nnx.graphdef(first) == nnx.graphdef(second)
    one, two = arrays_of(first), arrays_of(second)
    assert list(one) == list(two)
    for path, array in one.items():
        assert (array.dtype, array.shape) == (two[path].dtype, two[path].shape), path
        assert array.tobytes() == two[path].tobytes(), path


def test_whatever_a_model_holds(tmp_path):
    path, model = tmp_path / "mixed.safetensors", Mixed(1)
    models.save_weights(model, path)
    stored = load_file(path)
    assert sum("kernel" in name for name in stored) == 1  # the tied layer once
    assert stored["int4"].dtype == np.int8
    assert stored["codes"].tolist() == [[0x22, 0x10]]
    assert stored["list/10"].tolist() == [11] * 3
    assert [p.name for p in tmp_path.iterdir()] == ["mixed.safetensors"]
    for other in (Mixed(2), nnx.eval_shape(Mixed)):
        again = models.load_weights(other, path)
        assert again is other
        same(again, model)
        assert again.tied is again.first
        assert jax.random.key_impl(again.key[...]) == "rbg"


def test_all_that_does_not_fit_is_listed_and_nothing_is_filled(tmp_path):
    path, model = tmp_path / "mixed.safetensors", Mixed(1)
    stored = {name: np.array(a) for name, a in arrays_of(model).items() if name != "norm/scale"}
    stored |= {"int4": np.zeros(8, np.uint8), "first/bias": np.zeros(4, np.float32)}
    save_file(stored | {"stranger": np.zeros(2, np.float16)}, path)
    with pytest.raises(WeightsError) as error:
        models.load_weights(model, path)
    for line in (
        "does not fit Mixed: 4 of",
        "norm/scale: missing; expects bfloat16[3]",
        "first/bias: float32[4]; expects float32[3]",
        "int4: uint8[8]; expects int4[8]",
        "stranger: unexpected float16[2]",
    ):
        assert line in str(error.value)
    same(model, Mixed(1))


def test_numbers_that_an_int4_does_not_hold(tmp_path):
    path, model = tmp_path / "mixed.safetensors", Mixed(1)
    stored = {name: np.array(a) for name, a in arrays_of(model).items()}
    save_file(stored | {"int4": np.full(8, 8, np.int8)}, path)
    with pytest.raises(ValueError, match="int4 holds numbers outside of int4"):
        models.load_weights(model, path)
    same(model, Mixed(1))


def test_other_bad_input(tmp_path):
    with pytest.raises(ValueError, match=r"named \*\.safetensors"):
        models.save_weights(Mixed(), tmp_path / "mixed.npz")
    with pytest.raises(ValueError, match="Mixed has no values yet: cache, codes"):
        models.save_weights(nnx.eval_shape(Mixed), tmp_path / "mixed.safetensors")
    with pytest.raises(FileNotFoundError, match="No file of weights"):
        models.load_weights(Mixed(), tmp_path / "mixed.safetensors")

    class Eight(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.zeros(3, jnp.float8_e4m3b11fnuz))

    with pytest.raises(ValueError, match="w is of float8_e4m3b11fnuz"):
        models.save_weights(Eight(), tmp_path / "eight.safetensors")
    assert not list(tmp_path.iterdir())

    class Number(nnx.Module):
        def __init__(self):
            self.n = nnx.Variable(3)

    with pytest.raises(ValueError, match="n expects an array"):
        models.save_weights(Number(), tmp_path / "number.safetensors")

    class Slash(nnx.Module):
        def __init__(self):
            self.a = nnx.Dict(b=nnx.Param(jnp.zeros(1)))
            setattr(self, "a/b", nnx.Param(jnp.zeros(1)))

    with pytest.raises(ValueError, match="'a/b' twice"):
        models.save_weights(Slash(), tmp_path / "slash.safetensors")
