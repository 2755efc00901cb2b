# SPDX-License-Identifier: Apache-2.0
"""A case as a torch call: eager mode, channels_last, the same inputs, on the device JAX uses."""

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

import jax

from efficient_layers.evidence.cases import (
    Case,
    ConvBNReLU6,
    Convolution,
    Model,
    SoftmaxAttention,
)
from efficient_layers.evidence.jax_side import LEARNING_RATE, MOMENTUM, inputs, labels
from efficient_layers.models.menghani_cnn import HIDDEN_FEATURES, STAGE_FEATURES, STEM_FEATURES

INSTALL = (
    "pip install torch==2.13.0 && pip install --no-deps torchvision==0.28.0 timm && "
    "pip install transformers safetensors pillow pyyaml huggingface_hub"
)


def load(threads: int) -> Any:
    """The torch module, told to use `threads` threads.

    Raises:
      ImportError: torch, torchvision or timm is missing; the message has the command.
    """
    # torchvision's compiled operators are absent beside a CPU-only torch: nothing to register.
    name = "torchvision._meta_registrations"
    sys.modules.setdefault(name, types.ModuleType(name))
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(
            f"--against=torch needs torch, torchvision and timm ({error}). Install them on "
            f"Python 3.11 with: {INSTALL}. Or measure ours alone: --against=none."
        ) from error
    torch.set_num_threads(threads)
    return torch


def versions() -> str:
    """Versions of what ran."""
    return ", ".join(f"{n} {importlib.import_module(n).__version__}" for n in ("torch", "timm"))


def call(torch: Any, case: Case) -> Callable[[], Any]:
    """A zero-argument callable that runs `case` once and returns when it is done."""
    device = _device(torch)
    place = {"device": device, "memory_format": torch.channels_last}
    module = _module(torch, case).to(**place)
    x = torch.from_numpy(inputs(case))
    x = torch.movedim(x, -1, 1).to(**place) if x.is_floating_point() else x.long().to(device)
    if case.mode == "inference":
        run = _inference(torch, module, x)
    elif isinstance(case.subject, Model):
        run = _training_step(torch, module, x, torch.from_numpy(labels(case)).long().to(device))
    else:
        run = _gradients(torch, module, x)
    return run if device == "cpu" else _synchronised(torch, run)


def _device(torch: Any) -> str:
    if jax.default_backend() == "cpu":
        return "cpu"
    if jax.default_backend() == "gpu" and torch.cuda.is_available():
        return "cuda"
    raise RuntimeError(
        f"Both sides must run on one kind of device. JAX uses {jax.default_backend()!r}, which "
        "this torch cannot. Set JAX_PLATFORMS=cpu or install the matching torch."
    )


def _synchronised(torch: Any, run: Callable[[], Any]) -> Callable[[], Any]:
    def blocking() -> None:
        run()
        torch.cuda.synchronize()

    return blocking


def _module(torch: Any, case: Case) -> Any:
    subject, c = case.subject, case.image[-1]
    if isinstance(subject, Model):
        source, _, name = subject.theirs.partition(":")
        if source == "timm":
            return importlib.import_module("timm").create_model(name)
        return _of_transformers(torch, name) if source == "transformers" else menghani_cnn(torch)
    if isinstance(subject, Convolution):
        return _convolution(torch, subject, c)
    if isinstance(subject, ConvBNReLU6):
        steps = (
            _convolution(torch, subject.convolution, c),
            torch.nn.BatchNorm2d(subject.convolution.out_features),
        )
        return torch.nn.Sequential(*steps, torch.nn.ReLU6(inplace=True))
    if isinstance(subject, SoftmaxAttention):
        return _attention(torch, subject.causal)
    return torch.nn.BatchNorm2d(c)


# Name -> model, config, its fields; no dropout.
_TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert_small": (
        "BertForSequenceClassification",
        "BertConfig",
        {
            "num_hidden_layers": 4,
            "hidden_size": 512,
            "num_attention_heads": 8,
            "intermediate_size": 2048,
            "num_labels": 10,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False},
    ),
}


def _of_transformers(torch: Any, name: str) -> Any:
    """The logits of a model of transformers, with its own fastest attention."""
    transformers = importlib.import_module("transformers")
    model, config, fields = _TRANSFORMERS[name]

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = getattr(transformers, model)(getattr(transformers, config)(**fields))

        def forward(self, x: Any) -> Any:
            return self.model(x).logits

    return Logits()


def _attention(torch: Any, causal: bool) -> Any:
    """Scaled dot product attention on views of x, (b, d, n, heads) in channels_last."""
    attend = torch.nn.functional.scaled_dot_product_attention

    class SelfAttention(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return attend(*x.permute(0, 3, 2, 1).chunk(3, dim=1), is_causal=causal)

    return SelfAttention()


def _convolution(torch: Any, subject: Convolution, channels: int) -> Any:
    settings = {"padding": subject.padding, "groups": subject.groups, "bias": False}
    k, s = subject.kernel_size, subject.strides
    return torch.nn.Conv2d(channels, subject.out_features, k, s, **settings)


def menghani_cnn(torch: Any, num_classes: int = 10) -> Any:
    """The survey's plain CNN at width 1 for 32x32x3, in torch."""
    nn, steps, c = torch.nn, [], 3
    for features in (STEM_FEATURES, *STAGE_FEATURES):
        for _ in range(2):
            steps += [nn.Conv2d(c, features, 3, padding=1), nn.ReLU()]
            steps += [nn.BatchNorm2d(features, eps=1e-3, momentum=0.01)]
            c = features
        steps += [nn.MaxPool2d(2)]
    steps += [nn.Flatten(), nn.Linear(16 * c, HIDDEN_FEATURES), nn.ReLU()]
    return nn.Sequential(*steps, nn.Linear(HIDDEN_FEATURES, num_classes))


def _inference(torch: Any, module: Any, x: Any) -> Callable[[], Any]:
    module.eval()

    def once() -> None:
        with torch.inference_mode():
            module(x)

    return once


def _gradients(torch: Any, module: Any, x: Any) -> Callable[[], Any]:
    module.train()
    x.requires_grad_(True)
    cotangent = torch.randn_like(module(x))

    def once() -> None:
        x.grad = None
        module.zero_grad(set_to_none=True)
        module(x).backward(cotangent)

    return once


def _training_step(torch: Any, module: Any, x: Any, y: Any) -> Callable[[], Any]:
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)

    def once() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(module(x).flatten(0, -2), y.flatten()).backward()
        optimizer.step()

    return once
