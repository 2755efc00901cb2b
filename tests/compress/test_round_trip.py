# SPDX-License-Identifier: Apache-2.0
"""Compressed models through both kinds of file into a new process: logits bit-equal."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, models
from tests.compress.test_apply import logits
from tests.compress.test_fold import drawn

FIELDS = {"variant": "digits", "width": 0.35}
X = np.asarray(jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), np.float32)
OPEN = {"keep_ends": False}
CHAINS = {
    "removed": [compress.RemoveChannels("**", ratio=0.5)],
    "pruned": [compress.Prune("**", sparsity=0.8)],
    "folded_low_rank_int8": [
        compress.FoldBatchNorm(),
        compress.LowRank("classifier", rank=4),
        compress.Quantize("**", activations="static", **OPEN),
    ],
    "removed_int4": [
        compress.RemoveChannels("**", ratio=0.25),
        compress.Quantize("**", bits=4, **OPEN),
    ],
}

# In the new process: nothing but the files and the uncompressed model's name.
READ = """
import sys
from pathlib import Path
import numpy as np
from flax import nnx
from efficient_layers import compress, models
from tests.compress.test_apply import logits

folder = Path(sys.argv[1])
for packed in sorted(folder.glob("*.packed")):
    about = compress.read_about(packed)

    def base():
        made = about["create"]
        model = models.create(made["name"], **made["fields"], rngs=nnx.Rngs(1))
        model.eval()
        return model

    readers = {".packed": compress.load_packed, ".safetensors": models.load_weights}
    for suffix, read in readers.items():
        model = read(compress.rebuild(nnx.eval_shape(base), about["edits"]),
                     packed.with_suffix(suffix))
        np.save(f"{packed}{suffix}.npy", logits(model, np.load(folder / "x.npy")))
"""


@pytest.mark.slow
def test_into_a_new_process(tmp_path):
    base = drawn(models.create("mobilenet_v2", rngs=nnx.Rngs(0), **FIELDS))
    base.eval()
    create, expected = models.describe("mobilenet_v2", **FIELDS), {}
    for name, steps in CHAINS.items():
        small, log = compress.apply(base, steps, example=X, data=[X])
        about = {"create": create, "edits": log.edits}
        size = compress.save_packed(small, tmp_path / f"{name}.packed", about=about)
        models.save_weights(small, tmp_path / f"{name}.safetensors")
        assert size.stored_bytes < (tmp_path / f"{name}.safetensors").stat().st_size
        expected[name] = logits(small, X)
    np.save(tmp_path / "x.npy", X)
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", READ, str(tmp_path)], cwd=root, check=True)
    for name, values in expected.items():
        for suffix in (".packed", ".safetensors"):
            got = np.load(tmp_path / f"{name}.packed{suffix}.npy")
            np.testing.assert_array_equal(got, values)
