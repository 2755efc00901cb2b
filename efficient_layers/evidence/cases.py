# SPDX-License-Identifier: Apache-2.0
"""What the benchmark suites measure, as data: one `Case`, one row."""

import dataclasses
import fnmatch
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

Mode = Literal["inference", "training"]


@dataclasses.dataclass(frozen=True)
class Model:
    """A whole model. Training is a step of SGD with momentum on the cross-entropy.

    `theirs`: "timm:NAME", or "menghani_cnn" for the torch twin in `torch_side.py`.
    """

    name: str
    theirs: str
    fields: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution without bias, torch's padding. Training is forward and gradient of x and w."""

    out_features: int
    kernel_size: int
    strides: int = 1
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """A batch normalisation. Training is forward, running statistics, and all gradients."""


@dataclasses.dataclass(frozen=True)
class Case:
    """`subject` on a random input of shape (batch, *image): a row of the table."""

    workload: str
    subject: Model | Convolution | Normalisation
    image: tuple[int, int, int]
    mode: Mode
    batch: int

    @property
    def name(self) -> str:
        """What `--filter` matches."""
        return f"{self.workload}/{self.mode}/{self.batch}"


MOBILENET_V2 = Model("mobilenet_v2", "timm:mobilenetv2_100", MappingProxyType({"dropout_rate": 0}))
MENGHANI_CNN = Model("menghani_cnn", "menghani_cnn", MappingProxyType({"dropout_rate": 0}))

MODELS = (
    Case("mobilenet_v2_224", MOBILENET_V2, (224, 224, 3), "inference", 1),
    Case("mobilenet_v2_224", MOBILENET_V2, (224, 224, 3), "inference", 16),
    Case("mobilenet_v2_224", MOBILENET_V2, (224, 224, 3), "training", 16),
    Case("menghani_cnn_32", MENGHANI_CNN, (32, 32, 3), "inference", 1),
    Case("menghani_cnn_32", MENGHANI_CNN, (32, 32, 3), "inference", 128),
    Case("menghani_cnn_32", MENGHANI_CNN, (32, 32, 3), "training", 128),
)

# The shapes of MobileNetV2 at 224, from input to output.
_LAYER_SHAPES: tuple[tuple[str, Convolution | Normalisation, tuple[int, int, int]], ...] = (
    ("stem_3x3_s2", Convolution(32, 3, 2), (224, 224, 3)),
    ("depthwise_3x3_s1", Convolution(32, 3, 1, 32), (112, 112, 32)),
    ("depthwise_3x3_s2", Convolution(96, 3, 2, 96), (112, 112, 96)),
    ("depthwise_3x3_s1", Convolution(144, 3, 1, 144), (56, 56, 144)),
    ("depthwise_3x3_s2", Convolution(144, 3, 2, 144), (56, 56, 144)),
    ("depthwise_3x3_s1", Convolution(384, 3, 1, 384), (14, 14, 384)),
    ("depthwise_3x3_s1", Convolution(960, 3, 1, 960), (7, 7, 960)),
    ("pointwise_1x1", Convolution(96, 1), (112, 112, 16)),
    ("pointwise_1x1", Convolution(24, 1), (56, 56, 144)),
    ("pointwise_1x1", Convolution(384, 1), (14, 14, 64)),
    ("pointwise_1x1", Convolution(1280, 1), (7, 7, 320)),
    ("batch_norm", Normalisation(), (56, 56, 144)),
    ("batch_norm", Normalisation(), (14, 14, 384)),
)


def _layer_cases() -> tuple[Case, ...]:
    cases = []
    for kind, subject, image in _LAYER_SHAPES:
        workload = f"{kind}_{'x'.join(map(str, image))}"
        if isinstance(subject, Convolution):
            cases.append(Case(workload, subject, image, "inference", 1))
        cases.append(Case(workload, subject, image, "training", 16))
    return tuple(cases)


SUITES: Mapping[str, tuple[Case, ...]] = MappingProxyType(
    {"models": MODELS, "layers": _layer_cases()}
)


def select(suite: str, pattern: str = "*") -> tuple[Case, ...]:
    """The cases of a suite whose `name` matches the glob.

    >>> [case.name for case in select("models", "mobilenet*/inference/1")]
    ['mobilenet_v2_224/inference/1']

    Raises:
      ValueError: no such suite, or nothing matches.
    """
    if suite not in SUITES:
        raise ValueError(f"No suite is named {suite!r}. Known: {', '.join(SUITES)}.")
    chosen = tuple(case for case in SUITES[suite] if fnmatch.fnmatch(case.name, pattern))
    if not chosen:
        names = ", ".join(case.name for case in SUITES[suite])
        raise ValueError(f"--filter={pattern!r} matches no case of suite {suite!r}: {names}.")
    return chosen
