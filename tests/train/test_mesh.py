# SPDX-License-Identifier: Apache-2.0
"""Meshes and shardings on 8 virtual CPU devices, which exist only in a process of their own."""

import os
import subprocess
import sys
import textwrap

import jax
import pytest
from flax import nnx

from efficient_layers.train import mesh as meshes

pytestmark = pytest.mark.fast


def eight_devices(code):
    """Runs `code` where JAX sees 8 CPU devices; fails with its output."""
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", textwrap.dedent(PRELUDE + code)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


PRELUDE = """
import jax, numpy as np
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from efficient_layers.train import mesh as meshes

def raises(text, call):
    try:
        call()
    except ValueError as error:
        assert text in str(error), str(error)
    else:
        raise AssertionError(f"no error with {text!r}")
"""


def test_specs_become_meshes_and_wrong_ones_say_why():
    eight_devices("""
m = meshes.make_mesh("data:4,fsdp:2,tensor:1")
assert dict(m.shape) == {"data": 4, "fsdp": 2, "tensor": 1}
assert set(m.axis_types) == {jax.sharding.AxisType.Auto}, m.axis_types
assert dict(meshes.make_mesh("data:-1, fsdp:2").shape) == {"data": 4, "fsdp": 2}
assert dict(meshes.make_mesh("data:2", jax.devices()[:2]).shape) == {"data": 2}
assert list(meshes.make_mesh("data:2", jax.devices()[6:]).devices) == jax.devices()[6:]
raises("spans 3 x 2 devices, 8 cpu device(s) are there", lambda: meshes.make_mesh("data:3,fsdp:2"))
raises("spans 3 x -1 devices", lambda: meshes.make_mesh("data:3,fsdp:-1"))
raises("spans 16 x -1 devices", lambda: meshes.make_mesh("data:16,fsdp:-1"))

m = meshes.make_mesh("data:4,fsdp:2")
meshes.check_batch(64, m)
raises("batch size 60 does not divide over 8 devices (data:4 x fsdp:2); use 56 or 64",
       lambda: meshes.check_batch(60, m))
raises("use 8,", lambda: meshes.check_batch(3, m))
batch = jax.device_put(np.zeros((16, 3)), meshes.batch_sharding(m))
assert {s.data.shape for s in batch.addressable_shards} == {(2, 3)}
one = jax.device_put(np.zeros((16, 3)), meshes.replicated(m))
assert {s.data.shape for s in one.addressable_shards} == {(16, 3)}
""")


def test_rules_and_the_fsdp_default_place_arrays():
    eight_devices("""
import optax
m = meshes.make_mesh("data:2,fsdp:2,tensor:2")
shape = {"conv/kernel": (3, 3, 4, 6), "conv/bias": (6,), "head/kernel": (8, 6), "odd": (3, 5)}
params = {k: jnp.zeros(s) for k, s in shape.items()}
state = {"params": params, "opt": optax.adam(0.1).init(params), "step": jnp.zeros((), jnp.int32)}
rules = [("head/kernel", "tensor,data+fsdp"), ("conv/bias", "replicated")]

raises("head/kernel has shape (8, 6): 6 does not divide into 4 parts",
       lambda: meshes.state_shardings(state, m, rules, min_size=0))
rules[0] = ("head/kernel", "data+tensor,-")
got = meshes.state_shardings(state, m, rules, min_size=0)
spec = {k: s.spec for k, s in got["params"].items()}
assert spec == {"conv/kernel": P(None, None, None, "fsdp"), "conv/bias": P(),
                "head/kernel": P(("data", "tensor"), None), "odd": P()}, spec
assert {k: s.spec for k, s in got["opt"][0].mu.items()} == spec  # moments follow their weight
assert got["step"].spec == P()
placed = jax.device_put(state, got)
assert placed["params"]["head/kernel"].addressable_shards[0].data.shape == (2, 6)
big = meshes.state_shardings(state, m, min_size=100)
assert {k for k, s in big["params"].items() if s.spec != P()} == {"conv/kernel"}
raises("match no array: 'haed'", lambda: meshes.state_shardings(state, m, [("haed", "fsdp")]))
raises("has no axis 'model', only data, fsdp, tensor",
       lambda: meshes.state_shardings(state, m, [("head", "model")]))

# Adafactor keeps rows and columns of a weight: of lower rank than the rule, they take the default.
tx = optax.adafactor(0.1, min_dim_size_to_factor=4)
factored = meshes.state_shardings({"opt": tx.init(params)}, m, rules, min_size=0)
assert jax.tree.structure(factored) == jax.tree.structure({"opt": tx.init(params)})
""")


def test_a_step_gives_the_same_numbers_on_every_mesh():
    """Data parallel = FSDP = tensor = one device, for a two-layer network and Adam."""
    eight_devices("""
import optax
draw = np.random.default_rng(0)
params = {"hidden/kernel": jnp.asarray(draw.normal(size=(4, 8)), jnp.float32),
          "head/kernel": jnp.asarray(draw.normal(size=(8, 2)), jnp.float32)}
x, y = jnp.asarray(draw.normal(size=(16, 4)), jnp.float32), jnp.ones((16, 2))
tx = optax.adam(0.01)

def losses(mesh, rules):
    state = {"params": params, "opt": tx.init(params)}
    shardings = meshes.state_shardings(state, mesh, rules, min_size=0)

    def step(state, x, y):
        def loss(p):
            return jnp.mean((jax.nn.relu(x @ p["hidden/kernel"]) @ p["head/kernel"] - y) ** 2)
        value, grads = jax.value_and_grad(loss)(state["params"])
        updates, opt = tx.update(grads, state["opt"])
        return {"params": optax.apply_updates(state["params"], updates), "opt": opt}, value

    step = jax.jit(step, out_shardings=(shardings, meshes.replicated(mesh)))
    state = jax.device_put(state, shardings)
    batch = jax.device_put((x, y), meshes.batch_sharding(mesh))
    values = []
    for _ in range(10):
        state, value = step(state, *batch)
        values.append(float(value))
    return values

want = losses(meshes.make_mesh("data:1", jax.devices()[:1]), [])
for spec, rules in [("data:8", []), ("data:2,fsdp:4", []), ("fsdp:8", []),
                    ("data:2,fsdp:2,tensor:2", [("head/kernel", "tensor,fsdp")])]:
    np.testing.assert_allclose(losses(meshes.make_mesh(spec), rules), want, rtol=1e-5)
""")


@pytest.mark.parametrize(
    "spec", ["", "data", "data:0", "data:-2", "data:1,data:1", "data=4", "2:2"]
)
def test_other_text_is_an_error(spec):
    with pytest.raises(ValueError, match=r"'data:4,fsdp:2'\. Got"):
        meshes.make_mesh(spec)


def test_two_free_axes_are_an_error():
    with pytest.raises(ValueError, match=r"at most one axis may be -1\. Got data, fsdp"):
        meshes.make_mesh("data:-1,fsdp:-1")


def test_names_of_arrays_in_a_module_state():
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path({"head": state})[0]]
    assert sorted(map(meshes.array_name, paths)) == ["head/bias", "head/kernel"]
    mesh = meshes.make_mesh("data:1", jax.devices()[:1])
    shardings = meshes.state_shardings(state, mesh, [("kernel", "-,data")])
    assert jax.tree.leaves(shardings)[1].spec == jax.sharding.PartitionSpec(None, "data")
