# SPDX-License-Identifier: Apache-2.0
"""EfficientNet, its lite and CondConv forms, and the scaling of other networks beside it."""

from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from typing import Any

from efficient_layers import models
from efficient_layers.evidence.paper_tables import Row
from efficient_layers.evidence.reproduce.counts import (
    NO_FAMILY,
    giga,
    macs,
    mega,
    size,
)
from efficient_layers.evidence.verdict import Computed
from efficient_layers.models.efficientnet import SCALINGS

Cells = Mapping[str, Computed | str]


def table_2(row: Row) -> Cells:
    """B0 to B7, ResNet-50 and ResNet-152."""
    model = row["model"]
    scaling = SCALINGS.get(model.lower())
    name = f"efficientnet_{model.lower()}" if scaling else model.lower().replace("-", "")
    side = scaling.image_size if scaling else 224
    return {"params_M": mega(size(name).params), "flops_B": giga(macs(name, side))}


def coefficients(row: Row) -> Cells:
    """Our own rows of coefficients."""
    scaling = SCALINGS.get(row["model"])
    if scaling is None:
        return dict.fromkeys(("width", "depth", "resolution", "dropout"), NO_FAMILY)
    cells = ("width", "depth", "resolution", "dropout")
    return {cell: Computed(Fraction(str(n))) for cell, n in zip(cells, scaling, strict=True)}


def lite(row: Row) -> Cells:
    """lite0 to lite4."""
    name = f"tf_efficientnet_{row['model']}"
    return {
        "params_M": mega(size(name).params),
        "madds_M": mega(macs(name, SCALINGS[row["model"]].image_size)),
    }


def condconv(row: Row) -> Cells:
    """The convolutions of B0's last three stages, at 80 to 320 channels, mixed from experts.

    "Depth" has B1's repeats at B0's image size.
    """
    deep = row["model"] != "CondConv-B0" and row["model"] != "EfficientNet-B0"
    name = "efficientnet_b1" if deep else "efficientnet_b0"
    side = 240 if row["model"] == "EfficientNet-B1" else 224
    weights, routers = _mixed(1.1 if deep else 1.0, row["experts"])
    extra = max(0, row["experts"] - 1) * weights
    mixing = row["experts"] * weights
    return {
        "params_M": mega(size(name).params + extra + routers),
        "madds_M": mega(macs(name, side) + mixing + routers),
    }


def _mixed(depth: float, experts: int) -> tuple[int, int]:
    """Weights of the mixed convolutions, parameters of their routers."""
    weights = routers = 0
    c = 80
    for kernel, channels, repeats in ((5, 112, 3), (5, 192, 4), (3, 320, 1)):
        for _ in range(ceil(depth * repeats)):
            hidden = 6 * c
            weights += c * hidden + kernel**2 * hidden + hidden * channels
            routers += (c + 1) * experts
            c = channels
    return weights, routers


def table_3(row: Row) -> Cells:
    """Rows "NETWORK", "NETWORK w=2", "NETWORK d1.4 w1.2 r1.3", "NETWORK compound"."""
    network, _, scaling = row["model"].partition(" ")
    if scaling == "compound":
        return {"flops_B": "the compound coefficients are not printed"}
    by = {part[0]: float(part[1:].lstrip("=")) for part in scaling.split()}
    side = round(224 * by.get("r", 1.0))
    name, fields = _scaled(network, by.get("w", 1.0), by.get("d", 1.0))
    return {"flops_B": giga(macs(name, side, **fields))}


def _scaled(network: str, width: float, depth: float) -> tuple[str, dict[str, Any]]:
    """Every stage has ceil(depth x repeats) blocks; ResNet's channels are not rounded."""
    name = {"ResNet-50": "resnet50"}.get(network, network.lower().replace("netv", "net_v"))
    config = models.describe(name)["fields"]
    at = {"mobilenet_v1": 1, "mobilenet_v2": 2, "resnet50": 1}[name]  # repeats in a row of a stage
    stages = [[*row[:at], ceil(depth * row[at]), *row[at + 1 :]] for row in config["stages"]]
    if name != "resnet50":
        return name, {"width": width, "stages": stages}
    stages = [[round(width * row[0]), *row[1:]] for row in stages]
    return name, {"stages": stages, "stem_features": round(width * config["stem_features"])}


TABLES = {
    "efficientnet_t2": table_2,
    "efficientnet_params": coefficients,
    "efficientnet_t3": table_3,
    "efficientnet_lite": lite,
    "efficientnet_condconv": condconv,
}
