# SPDX-License-Identifier: Apache-2.0
"""ShuffleNet V2, SqueezeNet, GhostNet, MnasNet, ConvNeXt, and torchvision's own figures."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from efficient_layers.evidence.paper_tables import Row
from efficient_layers.evidence.reproduce import arithmetic
from efficient_layers.evidence.reproduce.counts import (
    NO_FAMILY,
    exactly,
    giga,
    macs,
    mega,
    size,
)
from efficient_layers.evidence.reproduce.mobilenets import v1, v2
from efficient_layers.evidence.reproduce.mobilenets_v3 import v3
from efficient_layers.evidence.verdict import Computed, number

Cells = Mapping[str, Computed | str]


def torchvision(row: Row) -> Cells:
    """Rows "NAME" or "NAME@SIDE"; the image of all others has 224 pixels a side."""
    name, _, side = row["model"].split(" ")[0].partition("@")
    if name.startswith("efficientnet_v2"):
        return dict.fromkeys(("num_params", "GMACs"), NO_FAMILY)
    return {
        "num_params": exactly(size(name).params),
        "GMACs": giga(macs(name, int(side or 224))),
    }


def shufflenet(row: Row) -> Cells:
    """Rows "WIDTHx"."""
    width = {"0.5x": "0_5", "1x": "1_0", "1.5x": "1_5", "2x": "2_0"}[row["model"]]
    return {"MFLOPs": mega(macs(f"shufflenet_v2_x{width}", 224))}


def squeezenet(row: Row) -> Cells:
    """FLOPs = 2 x MACs."""
    return {
        "gflops_per_image": giga(2 * arithmetic.macs(arithmetic.caffe_squeezenet(row["version"])))
    }


def squeezenet_compression(row: Row) -> Cells:
    """240 MB over what is left."""
    approach = row["approach"]
    if not approach.startswith("SqueezeNet"):
        return {"compression": "a result of another paper"}
    if approach == "SqueezeNet":
        return {"compression": Computed(240 / Fraction("4.8"))}
    megabytes = number(approach.partition("(")[2])
    half = Fraction(1, 200)  # sizes are printed to 0.01 MB
    low, high = (240 / (Fraction(megabytes) + d) for d in (half, -half))
    return {"compression": Computed((low + high) / 2, slack=(high - low) / 2)}


def ghostnet_table_7(row: Row) -> Cells:
    """Each network by the convention of its own table."""
    name, width = row["model"].split()[0], row["model"].split()[-1].removesuffix("x")
    columns = ("flops_M", "weights_M")
    if name == "MobileNetV1":
        return dict(zip(columns, v1(float(width), 224), strict=True))
    if name == "MobileNetV2":
        return dict(zip(columns, v2(float(width), 224), strict=True))
    if name.startswith("MobileNetV3"):
        kind = {"S": "Small", "L": "Large"}[name[-1]]
        return dict(zip(columns, v3(f"{kind} {width} float"), strict=True))
    ours = {
        "ShuffleNetV2": f"shufflenet_v2_x{width.replace('.', '_')}",
        "GhostNet": f"ghostnet_{round(100 * float(width)):03d}" if name == "GhostNet" else "",
        "MnasNet-A1": "semnasnet_100",
    }
    if name not in ours:
        return dict.fromkeys(columns, NO_FAMILY)
    return {"flops_M": mega(macs(ours[name], 224)), "weights_M": mega(size(ours[name]).params)}


def ghost_vgg(row: Row) -> Cells:
    """Rows "s=N" at d = 3 and "d=N" at s = 2; BatchNorm's two numbers a channel are counted."""
    letter, _, n = row["setting"].partition("=")
    setting = {"s": 2, "d": 3} | {letter: int(n)} if n else {"s": 1}
    products = arithmetic.cifar_vgg16(**setting)
    channels = sum(p.outputs for p in products[:-2])
    params = arithmetic.weights(products) + 2 * channels + 512 + 10
    return {"weights_M": mega(params), "flops_M": mega(arithmetic.macs(products))}


def mnasnet_a1(row: Row) -> Cells:
    """Rows "WIDTH_SIDE"."""
    width, side = row["model"].split("_")
    return dict(zip(("madds_M", "params_M"), a1(float(width), int(side)), strict=True))


def a1(width: float, side: int, **fields: Any) -> tuple[Computed, Computed]:
    """MACs and parameters in millions."""
    fields = {"width": width, **fields}
    return mega(macs("semnasnet_100", side, **fields)), mega(size("semnasnet_100", **fields).params)


def convnext(row: Row) -> Cells:
    """Rows of T, S, B, L and XL; the isotropic ones are another network."""
    letter, _, kind = row["model"].partition("-")
    if kind == "iso":
        return dict.fromkeys(("params_M", "flops_G"), NO_FAMILY)
    names = {"T": "tiny", "S": "small", "B": "base", "L": "large"}
    name, fields = f"convnext_{names.get(letter, 'base')}", dict[str, Any]()
    if letter == "XL":
        fields["stages"] = [[256, 3], [512, 3], [1024, 27], [2048, 3]]
    return {
        "params_M": mega(size(name, **fields).params),
        "flops_G": giga(macs(name, row["resolution"], **fields)),
    }


TABLES = {
    "torchvision_meta": torchvision,
    "shufflenet_v2_t8": shufflenet,
    "squeezenet_v11": squeezenet,
    "squeezenet_t2": squeezenet_compression,
    "ghostnet_t7": ghostnet_table_7,
    "ghostnet_cifar_s": ghost_vgg,
    "mnasnet_a1": mnasnet_a1,
    "convnext_readme": convnext,
}
