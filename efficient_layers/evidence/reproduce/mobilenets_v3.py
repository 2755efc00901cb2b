# SPDX-License-Identifier: Apache-2.0
"""MobileNetV3: TF-Slim's file, the paper's comparison and its two architecture tables."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from efficient_layers import models
from efficient_layers.evidence.paper_tables import Row, find
from efficient_layers.evidence.reproduce.counts import (
    NO_FAMILY,
    SLIM_CLASSES,
    exactly,
    macs,
    mega,
    size,
)
from efficient_layers.evidence.reproduce.mobilenets import v2
from efficient_layers.evidence.verdict import Computed

Cells = Mapping[str, Computed | str]

_ACTIVATIONS = {"relu": "RE", "hard_swish": "HS"}


def v3(name: str, side: int = 224) -> tuple[Computed, Computed]:
    """MACs and parameters in millions of "Large 0.75 float", "Small minimalistic 8bit", ..."""
    kind, width, _ = name.split()
    fields: dict[str, Any] = {"num_classes": SLIM_CLASSES}
    if width == "minimalistic":
        fields |= {"variant": f"{kind.lower()}_minimalistic"}
    else:
        fields |= {"variant": kind.lower(), "width": float(width), "head_features": 1280}
    return mega(macs("mobilenet_v3", side, **fields)), mega(size("mobilenet_v3", **fields).params)


def slim(row: Row) -> Cells:
    """Float and 8-bit rows are one network."""
    return dict(zip(("MACs_M", "params_M"), v3(row["model"]), strict=True))


def paper(row: Row) -> Cells:
    """Table 3."""
    name = row["network"]
    if name.startswith("V3-"):
        counted = v3(name.removeprefix("V3-") + " float")
    elif name.startswith("V2 "):
        counted = v2(float(name.removeprefix("V2 ")), 224)
    elif name in (ours := {"MnasNet-A1": "semnasnet_100", "Mnas-small": "mnasnet_small"}):
        fields = {"num_classes": SLIM_CLASSES}
        counted = mega(macs(ours[name], 224, **fields)), mega(size(ours[name], **fields).params)
    else:
        return dict.fromkeys(("params_M", "madds_M"), NO_FAMILY)
    return dict(zip(("madds_M", "params_M"), counted, strict=True))


@cache
def _blocks() -> dict[int, tuple[Any, ...]]:
    """Row of the two tables, one after the other -> our block."""
    configs = [models.describe("mobilenet_v3", variant=kind) for kind in ("large", "small")]
    return dict(enumerate(tuple(b) for c in configs for b in c["fields"]["blocks"]))


def architecture(row: Row) -> Cells:
    """Our own table's row, cell by cell."""
    index = next(i for i, r in enumerate(find("mobilenet_v3_t1_t2_arch").rows) if r is row)
    kernel, hidden, channels, se, act, strides = _blocks()[index]
    return {
        "kernel": exactly(kernel),
        "exp": exactly(hidden),
        "out": exactly(channels),
        "se": Computed(se),
        "nl": Computed(_ACTIVATIONS[act]),
        "stride": exactly(strides),
    }


TABLES = {
    "slim_mobilenet_v3": slim,
    "mobilenet_v3_t3": paper,
    "mobilenet_v3_t1_t2_arch": architecture,
}
