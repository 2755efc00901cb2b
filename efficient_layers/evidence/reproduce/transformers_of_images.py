# SPDX-License-Identifier: Apache-2.0
"""ViT, AugReg, DeiT, MobileViT: parameters."""

from collections.abc import Mapping
from fractions import Fraction

from efficient_layers.evidence.paper_tables import Row
from efficient_layers.evidence.reproduce.counts import NO_FAMILY, mega, size
from efficient_layers.evidence.verdict import Computed

Cells = Mapping[str, Computed | str]

IMAGENET_21K = 21843


def vit(row: Row) -> Cells:
    """Base without a classifier, Large with patches of 32, Huge with patches of 14."""
    names = {
        "ViT-Base": size("vit_b_16", num_classes=0),
        "ViT-Large": size("vit_l_32"),
        "ViT-Huge": size("vit_h_14"),
    }
    return {"params_M": mega(names[row["model"]].params)}


def augreg(row: Row) -> Cells:
    """MiB of float32 weights with ImageNet-21k's classifier."""
    letters, patch = row["model"].split("/")
    variants = {"Ti": "tiny", "S": "small", "B": "base", "L": "large"}
    if letters not in variants:
        return {"size_MiB": NO_FAMILY}
    fields = {"variant": variants[letters], "patch_size": int(patch), "num_classes": IMAGENET_21K}
    return {"size_MiB": Computed(Fraction(4 * size("vit", **fields).params, 2**20))}


def deit(row: Row) -> Cells:
    """Rows "DeiT-tiny distilled", "DeiT-base 384", and "DeiT-Ti" of the paper's table."""
    words = row["model"].removeprefix("DeiT-").split()
    variant = {"Ti": "tiny", "S": "small", "B": "base"}.get(words[0], words[0])
    image_size = 384 if "384" in words else 224
    counted = size(
        "vit", variant=variant, image_size=image_size, distilled="distilled" in words
    ).params
    return {"params_M": mega(counted)}


def mobilevit(row: Row) -> Cells:
    """XXS, XS, S."""
    return {"params_M": mega(size(f"mobilevit_{row['model'].lower()}").params)}


TABLES = {
    "vit_t1": vit,
    "vit_augreg_readme": augreg,
    "deit_readme": deit,
    "deit_t1": deit,
    "mobilevit": mobilevit,
}
