# SPDX-License-Identifier: Apache-2.0
"""MobileNet V1, V2 and V3: TF-Slim's files and the papers' tables."""

from collections.abc import Mapping
from typing import Any

from efficient_layers.evidence.paper_tables import Row
from efficient_layers.evidence.reproduce import arithmetic
from efficient_layers.evidence.reproduce.counts import (
    NO_FAMILY,
    SLIM_CLASSES,
    macs,
    mega,
    size,
)
from efficient_layers.evidence.verdict import Computed

Cells = Mapping[str, Computed | str]


def v1(width: float, side: int, **fields: Any) -> tuple[Computed, Computed]:
    """MACs and parameters in millions, as TF-Slim counts them."""
    fields = {"width": width, "num_classes": SLIM_CLASSES, **fields}
    return mega(macs("mobilenet_v1", side, **fields)), mega(size("mobilenet_v1", **fields).slim_v1)


def v1_without_norm(width: float, side: int, **fields: Any) -> tuple[Computed, Computed]:
    """MACs and parameters in millions, as the paper counts them."""
    fields = {"width": width, "num_classes": SLIM_CLASSES, **fields}
    params = size("mobilenet_v1", **fields).without_norm
    return mega(macs("mobilenet_v1", side, **fields)), mega(params)


def v2(width: float, side: int) -> tuple[Computed, Computed]:
    """MACs and parameters in millions, as TF-Slim counts them."""
    fields: dict[str, Any] = {"width": width, "num_classes": SLIM_CLASSES}
    params = size("mobilenet_v2", **fields).without_norm
    return mega(macs("mobilenet_v2", side, **fields)), mega(params)


def slim_v1(row: Row) -> Cells:
    """Rows "WIDTH_SIDE"."""
    width, side = row["model"].split("_")
    return dict(zip(("MACs_M", "params_M"), v1(float(width), int(side)), strict=True))


def slim_v2(row: Row) -> Cells:
    """Rows "WIDTH_SIDE"."""
    width, side = row["model"].split("_")
    return dict(zip(("MACs_M", "params_M"), v2(float(width), int(side)), strict=True))


def v1_paper(row: Row) -> Cells:
    """Rows "WIDTH MobileNet-SIDE", and the networks that tables 4, 5, 8 and 9 set beside them."""
    name = row["model"]
    if name in _OTHERS:
        counted = _OTHERS[name]()
    else:
        width, _, side = name.rpartition("MobileNet")
        counted = v1_without_norm(float(width or 1), int(side.lstrip("-") or 224))
    return dict(zip(("mult_adds_M", "params_M"), counted, strict=True))


def _googlenet() -> tuple[Computed, Computed]:
    products = arithmetic.googlenet()
    return mega(arithmetic.macs(products), unit=10), mega(arithmetic.params(products))


def _alexnet() -> tuple[Computed, Computed]:
    products = arithmetic.ALEXNET
    return mega(arithmetic.macs(products), unit=10), mega(arithmetic.params(products))


def _vgg() -> tuple[Computed, Computed]:
    """MACs of the convolutions: the three linear layers have one a weight."""
    linear = 512 * 49 * 4096 + 4096**2 + 4096 * 1000
    return mega(macs("vgg16", 224) - linear, unit=100), mega(size("vgg16").params)


def _squeezenet() -> tuple[Computed, Computed]:
    products = arithmetic.caffe_squeezenet("v1.0")
    return mega(arithmetic.macs(products)), mega(size("squeezenet1_0").params)


_OTHERS = {
    "Conv MobileNet": lambda: v1_without_norm(1.0, 224, separable=False),
    "Shallow MobileNet": lambda: v1_without_norm(1.0, 224, variant="shallow"),
    "GoogleNet": _googlenet,
    "VGG 16": _vgg,
    "Squeezenet": _squeezenet,
    "AlexNet": _alexnet,
}


def v2_table_4(row: Row) -> Cells:
    """V1, V2 and V2 of width 1.4."""
    known = {
        "MobileNetV1": lambda: v1_without_norm(1.0, 224),
        "MobileNetV2": lambda: v2(1.0, 224),
        "MobileNetV2 (1.4)": lambda: v2(1.4, 224),
    }
    if row["network"] not in known:
        return dict.fromkeys(("params_M", "madds_M"), NO_FAMILY)
    return dict(zip(("madds_M", "params_M"), known[row["network"]](), strict=True))


TABLES = {
    "slim_mobilenet_v1": slim_v1,
    "slim_mobilenet_v2": slim_v2,
    "mobilenet_v1_t4": v1_paper,
    "mobilenet_v1_t5": v1_paper,
    "mobilenet_v1_t6": v1_paper,
    "mobilenet_v1_t7": v1_paper,
    "mobilenet_v1_t8_t9": v1_paper,
    "mobilenet_v2_t4": v2_table_4,
}
