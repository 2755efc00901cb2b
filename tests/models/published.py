# SPDX-License-Identifier: Apache-2.0
"""Models of timm, torchvision and transformers: without weights, or with random ones.

Nothing can be downloaded here, so weights are drawn, running statistics included.
"""

import functools
import importlib
import sys
import types

import numpy as np
import pytest


def load(name):
    """The package, or a skip with the reason."""
    # torchvision's operators are absent beside a CPU-only torch: there is nothing to register.
    key = "torchvision._meta_registrations"
    sys.modules.setdefault(key, types.ModuleType(key))
    reason = f"{name} is an oracle: see docs/dependencies.md"
    return pytest.importorskip(name, reason=reason)


def torch_model(source, name, **fields):
    """Their model of that public name.

    For transformers a public name is looked up in `TRANSFORMERS`: (config class, model class,
    fields of the config), since its own table needs the network.
    """
    torch = load("torch")
    load(source)
    if source == "timm":
        return importlib.import_module("timm").create_model(name, **fields)
    if source == "torchvision":
        return getattr(importlib.import_module("torchvision.models"), name)(**fields)
    transformers = importlib.import_module("transformers")
    config, model, preset = TRANSFORMERS[name]
    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**{**preset, **fields}))


def _gpt2(features, depth, heads):
    return {"n_embd": features, "n_layer": depth, "n_head": heads}


def _bert(features, depth, vocabulary=30522):
    fields = {"hidden_size": features, "num_hidden_layers": depth, "vocab_size": vocabulary}
    heads = {"num_attention_heads": features // 64, "intermediate_size": 4 * features}
    return "BertConfig", "BertModel", fields | heads


def _decoder(kind, vocabulary, features, mlp_features, depth, heads, kv_heads, **fields):
    sizes = {"vocab_size": vocabulary, "hidden_size": features, "num_hidden_layers": depth}
    heads = {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    tied = {"tie_word_embeddings": True, "intermediate_size": mlp_features}
    return f"{kind}Config", f"{kind}ForCausalLM", {**sizes, **heads, **tied, **fields}


_UNTIED = {"tie_word_embeddings": False}
_HEADS = {"head_dim": 128}

TRANSFORMERS: dict[str, tuple[str, str, dict]] = {
    "HuggingFaceTB/SmolLM-135M": _decoder("Llama", 49152, 576, 1536, 30, 9, 3),
    "HuggingFaceTB/SmolLM-360M": _decoder("Llama", 49152, 960, 2560, 32, 15, 5),
    "HuggingFaceTB/SmolLM-1.7B": _decoder("Llama", 49152, 2048, 8192, 24, 32, 32),
    "HuggingFaceTB/SmolLM2-135M": _decoder("Llama", 49152, 576, 1536, 30, 9, 3),
    "HuggingFaceTB/SmolLM2-360M": _decoder("Llama", 49152, 960, 2560, 32, 15, 5),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": _decoder(
        "Llama", 32000, 2048, 5632, 22, 32, 4, **_UNTIED
    ),
    "meta-llama/Llama-2-7b-hf": _decoder("Llama", 32000, 4096, 11008, 32, 32, 32, **_UNTIED),
    "meta-llama/Llama-2-13b-hf": _decoder("Llama", 32000, 5120, 13824, 40, 40, 40, **_UNTIED),
    "meta-llama/Meta-Llama-3-8B": _decoder("Llama", 128256, 4096, 14336, 32, 32, 8, **_UNTIED),
    "mistralai/Mistral-7B-v0.1": _decoder("Mistral", 32000, 4096, 14336, 32, 32, 8, **_UNTIED),
    "Qwen/Qwen2-0.5B": _decoder("Qwen2", 151936, 896, 4864, 24, 14, 2),
    "Qwen/Qwen2-1.5B": _decoder("Qwen2", 151936, 1536, 8960, 28, 12, 2),
    "Qwen/Qwen2.5-0.5B": _decoder("Qwen2", 151936, 896, 4864, 24, 14, 2),
    "Qwen/Qwen2.5-1.5B": _decoder("Qwen2", 151936, 1536, 8960, 28, 12, 2),
    "Qwen/Qwen2.5-3B": _decoder("Qwen2", 151936, 2048, 11008, 36, 16, 2),
    "Qwen/Qwen3-0.6B": _decoder("Qwen3", 151936, 1024, 3072, 28, 16, 8, **_HEADS),
    "Qwen/Qwen3-1.7B": _decoder("Qwen3", 151936, 2048, 6144, 28, 16, 8, **_HEADS),
    "Qwen/Qwen3-4B": _decoder("Qwen3", 151936, 2560, 9728, 36, 32, 8, **_HEADS),
    "Qwen/Qwen3-8B": _decoder("Qwen3", 151936, 4096, 12288, 36, 32, 8, **_HEADS, **_UNTIED),
    **{
        f"{owner}{name}": ("GPT2Config", "GPT2LMHeadModel", fields)
        for owners, name, fields in [
            (("", "openai-community/"), "gpt2", {}),
            (("", "openai-community/"), "gpt2-medium", _gpt2(1024, 24, 16)),
            (("", "openai-community/"), "gpt2-large", _gpt2(1280, 36, 20)),
            (("", "openai-community/"), "gpt2-xl", _gpt2(1600, 48, 25)),
            (("", "distilbert/"), "distilgpt2", {"n_layer": 6}),
        ]
        for owner in owners
    },
    **{
        f"google/bert_uncased_L-{depth}_H-{features}_A-{features // 64}": _bert(features, depth)
        for depth in (2, 4, 6, 8, 10, 12)
        for features in (128, 256, 512, 768)
    },
    "prajjwal1/bert-tiny": _bert(128, 2),
    "prajjwal1/bert-mini": _bert(256, 4),
    "prajjwal1/bert-small": _bert(512, 4),
    "prajjwal1/bert-medium": _bert(512, 8),
    **{
        f"{owner}{name}": preset
        for owner in ("", "google-bert/")
        for name, preset in {
            "bert-base-uncased": _bert(768, 12),
            "bert-base-cased": _bert(768, 12, 28996),
            "bert-base-chinese": _bert(768, 12, 21128),
            "bert-base-multilingual-cased": _bert(768, 12, 119547),
            "bert-large-uncased": _bert(1024, 24),
            "bert-large-cased": _bert(1024, 24, 28996),
        }.items()
    },
    **{
        f"{owner}distilbert-base-{kind}": ("DistilBertConfig", "DistilBertModel", {"vocab_size": v})
        for owner in ("", "distilbert/")
        for kind, v in {"uncased": 30522, "cased": 28996, "multilingual-cased": 119547}.items()
    },
    **{
        f"{owner}albert-{size}-{version}": (
            "AlbertConfig",
            "AlbertModel",
            {
                "hidden_size": features,
                "num_hidden_layers": depth,
                "num_attention_heads": heads,
                "intermediate_size": 4 * features,
            },
        )
        for owner in ("", "albert/")
        for version in ("v1", "v2")
        for size, features, depth, heads in [
            ("base", 768, 12, 12),
            ("large", 1024, 24, 16),
            ("xlarge", 2048, 24, 16),
            ("xxlarge", 4096, 12, 64),
        ]
    },
    "google/mobilebert-uncased": ("MobileBertConfig", "MobileBertModel", {}),
}


def published_parameters(source, name):
    """How many parameters the package's model has; nothing is allocated."""
    torch = load("torch")
    with torch.device("meta"):
        return sum(p.numel() for p in torch_model(source, name).parameters())


def randomised(module, seed=0):
    """`module` in eval mode with every parameter and statistic drawn at random."""
    torch = load("torch")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim > 1 and tensor.is_floating_point():
                tensor.mul_(0.5).add_(0.5 * tensor.std() * noise)
            elif tensor.is_floating_point():
                tensor.add_(0.2 * noise)
    return module.eval()


def images(size, batch=2, channels=3):
    """(ours, theirs): the same standard normal images, channels last and first."""
    torch = load("torch")
    x = np.random.default_rng(1).standard_normal((batch, *size, channels)).astype(np.float32)
    return x, torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def relative_error(ours, theirs):
    """Largest difference over the largest value of theirs."""
    theirs = np.asarray(theirs.detach() if hasattr(theirs, "detach") else theirs)
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def check_weights(ours, theirs, inputs, run=None, tolerance=1e-4, source=None):
    """Their random weights in ours: equal outputs on each of `inputs`, bit-equal round trip.

    Args:
      theirs: in eval mode, randomised.
      inputs: pairs (ours, theirs) of inputs, as `images` makes.
      run: their module, their input -> their output; None calls it.
    """
    import jax
    from flax import nnx

    import efficient_layers as el

    torch = load("torch")
    state_dict = theirs.state_dict()
    assert el.models.load_torch(ours, state_dict, source=source) == []
    back = el.models.export_torch(ours, source)
    tensors = type(state_dict)((k, torch.from_numpy(v.copy())) for k, v in back.items())
    tensors._metadata = state_dict._metadata  # torchvision's MnasNet asks for the version
    theirs.load_state_dict(tensors, strict=False)
    for name, value in back.items():
        assert np.array_equal(value, state_dict[name].numpy()), name
    ours.eval()
    graphdef, state = nnx.split(ours)
    forward = jax.jit(lambda state, x: nnx.merge(graphdef, state, copy=True)(x))
    for x, x_torch in inputs:
        with torch.inference_mode():
            expected = (run or functools.partial(torch.nn.Module.__call__))(theirs, x_torch)
        assert relative_error(forward(state, x), expected) < tolerance
