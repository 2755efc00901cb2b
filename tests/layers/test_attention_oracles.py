# SPDX-License-Identifier: Apache-2.0
"""Attention layers against torch's and transformers' with the same weights; nnx's too."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from tests.layers.case import randomised

torch = pytest.importorskip("torch", reason="torch is an oracle: see docs/dependencies.md")
# torchvision's operators are absent beside a CPU-only torch: there is nothing to register.
sys.modules.setdefault(
    "torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations")
)
pytest.importorskip("transformers", reason="transformers is an oracle: see docs/dependencies.md")

from transformers.models.bloom import modeling_bloom  # noqa: E402
from transformers.models.llama import LlamaConfig, modeling_llama  # noqa: E402
from transformers.models.mpt import modeling_mpt  # noqa: E402
from transformers.models.t5 import T5Config, modeling_t5  # noqa: E402

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
X = np.random.default_rng(0).normal(size=(2, 9, 16)).astype(np.float32)


def copy(ours, theirs):
    """Kernel and bias of an `nnx.Linear` to a `torch.nn.Linear`."""
    theirs.weight.data = torch.tensor(np.asarray(ours.kernel[...]).T)
    if ours.bias is not None:
        theirs.bias.data = torch.tensor(np.asarray(ours.bias[...]))


def made(layer=layers.MultiHeadAttention, heads=4, **kwargs):
    module = randomised(layer(16, heads, **kwargs, rngs=nnx.Rngs(0)))
    module.eval()
    return module


def agree(module, theirs, **kwargs):
    """Outputs, and gradients by the input, of `theirs(x)`."""
    weights = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    x = torch.tensor(X, requires_grad=True)
    y = theirs(x)
    (y * torch.tensor(weights)).sum().backward()
    ours, back = jax.jit(lambda x: jax.vjp(lambda x: module(x, **kwargs), x))(X)
    np.testing.assert_allclose(ours, y.detach().numpy(), atol=2e-5)
    np.testing.assert_allclose(jax.jit(back)(jnp.asarray(weights))[0], x.grad.numpy(), atol=5e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention_is_torchs(causal):
    module = made(causal=causal)
    theirs = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    parts = module.query, module.key, module.value
    kernels = [np.asarray(part.kernel[...]).T for part in parts]
    theirs.in_proj_weight.data = torch.tensor(np.concatenate(kernels))
    biases = [np.asarray(part.bias[...]) for part in parts]
    theirs.in_proj_bias.data = torch.tensor(np.concatenate(biases))
    copy(module.out, theirs.out_proj)
    keys = np.arange(9) < np.array([[7], [9]])

    def call(x):
        hidden = torch.triu(torch.ones(9, 9, dtype=torch.bool), 1) if causal else None
        return theirs(x, x, x, key_padding_mask=torch.tensor(~keys), attn_mask=hidden)[0]

    agree(module, call, mask=keys)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("scaling", [None, "linear"])
def test_grouped_query_attention_with_rope_is_llamas(window, scaling):
    """Mistral's window included: a query sees `window` keys, its own among them."""
    factor = 2.0 if scaling else 1.0
    rope = layers.RoPE(base=500.0, scaling=scaling, factor=factor)
    kind, more = layers.GroupedQueryAttention, {}
    if window:
        kind, more = layers.SlidingWindowAttention, {"window": window}
    module = made(kind, num_kv_heads=2, causal=True, position=rope, use_bias=False, **more)
    parameters = {"rope_type": scaling or "default", "rope_theta": 500.0, "factor": factor}
    config = LlamaConfig(
        hidden_size=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters=parameters,
        attn_implementation="eager",
    )
    theirs = modeling_llama.LlamaAttention(config, 0)
    pairs = {"q_proj": module.query, "k_proj": module.key, "v_proj": module.value}
    for name, part in {**pairs, "o_proj": module.out}.items():
        copy(part, getattr(theirs, name))
    rotary = modeling_llama.LlamaRotaryEmbedding(config)
    i, j = np.arange(9)[:, None], np.arange(9)
    seen = (j <= i) & (i - j < (window or 9))
    hidden = torch.tensor(np.where(seen, 0, -np.inf).astype(np.float32))[None, None]

    def call(x):
        angles = rotary(x, torch.arange(9)[None])
        return theirs(x, position_embeddings=angles, attention_mask=hidden)[0]

    agree(module, call)


@pytest.mark.parametrize("heads", [1, 4, 6, 8, 12, 20])
def test_alibi_slopes_are_those_of_bloom_and_mpt(heads):
    slopes = layers.ALiBi().slopes(heads)
    bloom = modeling_bloom.build_alibi_tensor(torch.ones(1, 5), heads, torch.float32)
    np.testing.assert_allclose(bloom[:, 0].numpy(), slopes[:, None] * np.arange(5), rtol=1e-6)
    mpt = modeling_mpt.build_mpt_alibi_tensor(heads, 5).numpy()
    ours = np.asarray(layers.ALiBi().bias(heads, 5, 5))[:, -1:]
    np.testing.assert_allclose(mpt, ours, rtol=1e-6)


@pytest.mark.parametrize(("buckets", "longest"), [(32, 128), (8, 20)])
@pytest.mark.parametrize("both", [False, True])
def test_buckets_are_t5s(buckets, longest, both):
    distances = np.arange(-200, 201)
    bucket = modeling_t5.T5Attention._relative_position_bucket
    theirs = bucket(torch.tensor(distances), both, buckets, longest)
    module = layers.RelativeBias(
        1, buckets=buckets, max_distance=longest, bidirectional=both, rngs=nnx.Rngs(0)
    )
    module.table.set_value(jnp.arange(buckets, dtype=jnp.float32)[:, None])
    ours = module.between(jnp.zeros(1, jnp.int32), jnp.asarray(distances))[0, 0]
    np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("causal", [False, True])
def test_attention_with_relative_bias_is_t5s(causal):
    position = layers.RelativePosition(buckets=8, max_distance=6)
    module = made(causal=causal, position=position, use_bias=False)
    config = T5Config(
        d_model=16,
        d_kv=4,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=6,
        is_decoder=causal,
        dropout_rate=0.0,
        attn_implementation="eager",
    )
    theirs = modeling_t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    theirs.eval()
    for name, part in {"k": module.key, "v": module.value, "o": module.out}.items():
        copy(part, getattr(theirs, name))
    copy(module.query, theirs.q)
    theirs.q.weight.data /= 2  # ours divides scores by sqrt(head_dim) = 2
    table = np.array(module.relative_bias.table[...])
    theirs.relative_attention_bias.weight.data = torch.tensor(table)
    hidden = np.triu(np.full((9, 9), -np.inf, np.float32), 1) if causal else np.zeros((9, 9))
    mask = torch.tensor(hidden.astype(np.float32))[None, None]
    agree(module, lambda x: theirs(x, mask)[0])


def test_multi_head_attention_is_flaxs():
    module = made(use_bias=True)
    theirs = nnx.MultiHeadAttention(4, 16, decode=False, rngs=nnx.Rngs(0))
    for name in ("query", "key", "value"):
        ours = getattr(module, name)
        getattr(theirs, name).kernel.set_value(ours.kernel[...].reshape(16, 4, 4))
        getattr(theirs, name).bias.set_value(ours.bias[...].reshape(4, 4))
    theirs.out.kernel.set_value(module.out.kernel[...].reshape(4, 4, 16))
    theirs.out.bias.set_value(module.out.bias[...])
    np.testing.assert_allclose(jax.jit(module)(X), jax.jit(theirs)(X), atol=2e-5)
