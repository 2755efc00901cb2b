# SPDX-License-Identifier: Apache-2.0
"""What the benchmark suites measure, as data: one `Case`, one row."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from efficient_layers.evidence.globs import matching

Mode = Literal["inference", "training"]


@dataclasses.dataclass(frozen=True)
class Model:
    """A whole model. Training is a step of SGD with momentum on the cross-entropy.

    `theirs`: "timm:NAME", "transformers:NAME" or "menghani_cnn", the last two as `torch_side.py`
    has them. `vocabulary`: the input is tokens below it, not images.
    """

    name: str
    theirs: str
    fields: Mapping[str, Any]
    vocabulary: int = 0


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution without bias. Training is forward and gradient of x and w."""

    out_features: int
    kernel_size: int
    strides: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        """k // 2, torch's habit; 0 where windows do not overlap (a patchify stem)."""
        return 0 if self.kernel_size == self.strides else self.kernel_size // 2


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """A batch normalisation. Training is forward, running statistics, and all gradients."""


@dataclasses.dataclass(frozen=True)
class ConvBNReLU6:
    """Convolution, batch normalisation and ReLU6. Training as for its parts."""

    convolution: Convolution


@dataclasses.dataclass(frozen=True)
class SoftmaxAttention:
    """8 heads of 64; q, k, v side by side on the axis of heads. Training is as for convolutions."""

    causal: bool


Layer = Convolution | Normalisation | ConvBNReLU6 | SoftmaxAttention


@dataclasses.dataclass(frozen=True)
class Case:
    """`subject` on a random input of shape (batch, *image): a row of the table.

    `image`: (h, w, c), or (n,) for n tokens.
    """

    kind: str
    workload: str
    subject: Model | Layer
    image: tuple[int, ...]
    mode: Mode
    batch: int

    @property
    def name(self) -> str:
        """What `--filter` matches."""
        return f"{self.workload}/{self.mode}/{self.batch}"


_STILL = MappingProxyType({"dropout_rate": 0})
MOBILENET_V2 = Model("mobilenet_v2", "timm:mobilenetv2_100", _STILL)
MENGHANI_CNN = Model("menghani_cnn", "menghani_cnn", _STILL)
# Of timm, by the names that we know too; without dropout, as timm's are made by default.
_TIMM: dict[str, dict[str, Any]] = {
    "mobilenetv3_large_100": {"dropout_rate": 0},
    "efficientnet_b0": {"dropout_rate": 0, "drop_path_rate": 0},
    "resnet50": {},
    "convnext_tiny": {},
    "vit_tiny_patch16_224": {},
    "deit_small_patch16_224": {},
}
BERT_SMALL = Model(
    "google/bert_uncased_L-4_H-512_A-8",
    "transformers:bert_small",
    MappingProxyType({"num_classes": 10, "dropout_rate": 0, "attention_dropout_rate": 0}),
    vocabulary=30522,
)
GPT2 = Model("gpt2", "transformers:gpt2", _STILL, vocabulary=50257)


def _model_cases() -> Iterator[Case]:
    """Inference of one and of a batch, and the training step, of every model."""
    image = (224, 224, 3)
    yield from _modes("mobilenet_v2_224", MOBILENET_V2, image)
    yield from _modes("menghani_cnn_32", MENGHANI_CNN, (32, 32, 3), batch=128)
    for name, fields in _TIMM.items():
        workload = name if name.endswith("224") else f"{name}_224"
        model = Model(name, f"timm:{name}", MappingProxyType(fields))
        yield from _modes(workload, model, image)
    yield from _modes("bert_small_256", BERT_SMALL, (256,))
    yield from _modes("gpt2_256", GPT2, (256,))


def _modes(workload: str, model: Model, image: tuple[int, ...], batch: int = 16) -> Iterator[Case]:
    yield Case("model", workload, model, image, "inference", 1)
    yield Case("model", workload, model, image, "inference", batch)
    yield Case("model", workload, model, image, "training", batch)


MODELS = tuple(_model_cases())

# (kernel, stride, height = width, channels): the distinct depthwise layers at 224, by the network
# in which each comes first.
_DEPTHWISE = (
    # MobileNetV2 (arXiv 1801.04381), table 2
    *((3, 1, 112, 32), (3, 2, 112, 96), (3, 1, 56, 144), (3, 2, 56, 144), (3, 1, 28, 192)),
    *((3, 2, 28, 192), (3, 1, 14, 384), (3, 1, 14, 576), (3, 2, 14, 576), (3, 1, 7, 960)),
    # MobileNetV3-Large (arXiv 1905.02244), table 1
    *((3, 1, 112, 16), (3, 2, 112, 64), (3, 1, 56, 72), (5, 2, 56, 72), (5, 1, 28, 120)),
    *((3, 2, 28, 240), (3, 1, 14, 200), (3, 1, 14, 184), (3, 1, 14, 480), (3, 1, 14, 672)),
    *((5, 2, 14, 672), (5, 1, 7, 960)),
    # EfficientNet-B0 (arXiv 1905.11946), table 1
    *((5, 2, 56, 144), (5, 1, 28, 240), (5, 1, 14, 480), (5, 1, 14, 672), (5, 1, 7, 1152)),
    (3, 1, 7, 1152),
    # ConvNeXt-T (arXiv 2201.03545), section 2
    *((7, 1, 56, 96), (7, 1, 28, 192), (7, 1, 14, 384), (7, 1, 7, 768)),
)
# (output channels, height = width, channels) of 1x1 layers of MobileNetV2.
_POINTWISE = (
    (96, 112, 16),
    (24, 56, 144),
    (144, 56, 24),
    (384, 14, 64),
    (96, 14, 576),
    (1280, 7, 320),
)
# (height = width, channels) of 3x3 layers of ResNets; of normalisations in MobileNetV2.
_DENSE = ((56, 64), (28, 128), (14, 256))
_NORMALISATION = ((112, 96), (56, 144), (14, 384))


def _layer_cases() -> Iterator[Case]:
    for k, s, size, c in _DEPTHWISE:
        workload, subject = f"depthwise_{k}x{k}_s{s}", Convolution(c, k, s, c)
        yield from _cases("depthwise", workload, subject, size, c)
    for out, size, c in _POINTWISE:
        yield from _cases("pointwise", f"pointwise_1x1_{out}", Convolution(out, 1), size, c)
    for k, s, out in ((3, 2, 32), (4, 4, 96)):
        yield from _cases("stem", f"stem_{k}x{k}_s{s}", Convolution(out, k, s), 224, 3)
    for groups in (8, 32):
        subject = Convolution(256, 3, groups=groups)
        yield from _cases("grouped", f"grouped_3x3_g{groups}", subject, 28, 256, batches=(8,))
    for size, c in _DENSE:
        yield from _cases("dense", "dense_3x3", Convolution(c, 3), size, c, batches=(8,))
    norms: dict[str, Any] = {"batches": (8, 16), "modes": ("training",)}
    for size, c in _NORMALISATION:
        yield from _cases("batch_norm", "batch_norm", Normalisation(), size, c, **norms)
    for kind, groups in (("depthwise", 144), ("pointwise", 1)):
        block = ConvBNReLU6(Convolution(144, 3 if groups > 1 else 1, groups=groups))
        yield from _cases("conv_bn_relu6", f"conv_bn_relu6_{kind}", block, 56, 144, **norms)
    for (n, batch), causal in itertools.product(((512, 4), (4096, 1)), (False, True)):
        workload = f"attention_{n}{'_causal' if causal else ''}"
        for mode in ("inference", "training"):
            whole = SoftmaxAttention(causal)
            yield Case("attention", workload, whole, (n, 24, 64), mode, batch)


def _cases(
    kind: str,
    workload: str,
    subject: Layer,
    size: int,
    channels: int,
    *,
    batches: tuple[int, ...] = (1, 8),
    modes: tuple[Mode, ...] = ("inference", "training"),
) -> Iterator[Case]:
    """A layer on square images, at each batch size in each mode."""
    image = (size, size, channels)
    workload = f"{workload}_{'x'.join(map(str, image))}"
    for mode, batch in itertools.product(modes, batches):
        yield Case(kind, workload, subject, image, mode, batch)


SUITES: Mapping[str, tuple[Case, ...]] = MappingProxyType(
    {"models": MODELS, "layers": tuple(_layer_cases())}
)


def select(suite: str, pattern: str = "*") -> tuple[Case, ...]:
    """The cases of a suite whose `name` matches the glob, or one of several (comma between).

    >>> [case.name for case in select("models", "mobilenet*/inference/1")]
    ['mobilenet_v2_224/inference/1']

    Raises:
      ValueError: no such suite, or nothing matches.
    """
    if suite not in SUITES:
        raise ValueError(f"No suite is named {suite!r}. Known: {', '.join(SUITES)}.")
    cases = {case.name: case for case in SUITES[suite]}
    return tuple(
        cases[name] for name in matching(pattern, tuple(cases), f"case of suite {suite!r}")
    )
