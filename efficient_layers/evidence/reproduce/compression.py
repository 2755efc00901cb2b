# SPDX-License-Identifier: Apache-2.0
"""Sizes of compressed models: Deep Compression, TFLite, the survey's own tables."""

from collections.abc import Iterable, Mapping
from fractions import Fraction

from efficient_layers.evidence.paper_tables import Row
from efficient_layers.evidence.reproduce import arithmetic
from efficient_layers.evidence.reproduce.counts import (
    NO_FAMILY,
    SLIM_CLASSES,
    exactly,
    mega,
    size,
)
from efficient_layers.evidence.verdict import Computed, number

Cells = Mapping[str, Computed | str]

_LENET_300 = ((784, 300), (300, 100), (100, 10))  # LeNet-300-100's linear layers
_LENET_5 = 25 * 20 + 20 + 25 * 20 * 50 + 50 + (800 * 500 + 500) + (500 * 10 + 10)
_RESULT = "a result of pruning and coding a trained network"


def _linear(shapes: Iterable[tuple[int, int]]) -> int:
    return sum(i * o + o for i, o in shapes)


def deep_compression_t1(row: Row) -> Cells:
    """References: 4 bytes a weight, printed to three digits. Rates: from the printed sizes."""
    name, kind = row["network"].rsplit(" ", 1)
    if kind == "ref":
        return {"size": _reference(name), "rate": "the reference itself"}
    printed = {"LeNet-300-100": 1070, "LeNet-5": 1720, "AlexNet": 240, "VGG-16": 552}[name]
    rate = Computed(printed / Fraction(number(row["size"])))
    if name == "LeNet-300-100":  # table 2: 2.49 % of the reference is left
        left = Fraction("2.49") / 100 * 4 * _linear(_LENET_300) / 1000
        return {"size": Computed(left), "rate": rate}
    return {"size": _RESULT, "rate": rate}


def _reference(name: str) -> Computed:
    counted = {
        "LeNet-300-100": (_linear(_LENET_300), 1000),
        "LeNet-5": (_LENET_5, 1000),
        "AlexNet": (arithmetic.params(arithmetic.ALEXNET), 10**6),
    }
    if name == "VGG-16":  # from the millions of parameters that its authors print
        return Computed(4 * Fraction(138), slack=Fraction(2))
    params, unit = counted[name]
    return Computed(Fraction(4 * params, unit), unit=Fraction(10))


def deep_compression_t2(row: Row) -> Cells:
    """Bits kept over 32 a weight, see the table's `how`."""
    layers = {"ip1": _LENET_300[:1], "ip2": _LENET_300[1:2], "ip3": _LENET_300[2:]}
    shapes = layers.get(row["layer"], _LENET_300)
    rates = {
        f"rate_{stage}_pct": _rate(row, stage, _linear(shapes), len(shapes))
        for stage in ("PQ", "PQH")
    }
    return {"weights": Computed(Fraction(_linear(shapes), 1000)), **rates}


def _rate(row: Row, stage: str, weights: int, codebooks: int) -> Computed:
    bits = Fraction(row[f"weight_bits_{stage}"]) + Fraction(row[f"index_bits_{stage}"])
    percent = Fraction(row["weights_pct"])

    def rate(percent: Fraction) -> Fraction:
        kept = percent / 100
        far = (1 - kept) ** 2 ** row["index_bits_PQ"]  # a gap too long for the index
        fillers = far / (1 - far)
        codebook = codebooks * 2 ** row["weight_bits_PQ"]
        return 100 * (kept * (1 + fillers) * bits / 32 + Fraction(codebook, weights))

    low, high = rate(percent - Fraction(1, 2)), rate(percent + Fraction(1, 2))
    return Computed((low + high) / 2, slack=(high - low) / 2)


def tflite(row: Row) -> Cells:
    """Folded numbers of 4 bytes; in 8 bits, weights of 1 byte and biases of 4."""
    family = {"Mobilenet-v1-1-224": "mobilenet_v1", "Mobilenet-v2-1-224": "mobilenet_v2"}
    if row["model"] not in family:
        return dict.fromkeys(("MB_float", "MB_opt"), NO_FAMILY)
    counted = size(family[row["model"]], num_classes=SLIM_CLASSES)
    biases = counted.channels + SLIM_CLASSES
    return {
        "MB_float": mega(4 * counted.folded),
        "MB_opt": mega(counted.folded + 3 * biases),
    }


def menghani_cnn(row: Row) -> Cells:
    """Parameters with and without running statistics."""
    counted = size("menghani_cnn", width=float(row["width_mult"]))
    return {
        "total_params": exactly(counted.with_statistics),
        "trainable_params": exactly(counted.params),
    }


def separable(row: Row) -> Cells:
    """A 3x3 convolution of 3 to 32 channels, whole and in two."""
    whole = row["layer"].startswith("conv")
    return {"params": exactly(9 * 3 * 32 if whole else 9 * 3 + 3 * 32)}


TABLES = {
    "deep_compression_t1": deep_compression_t1,
    "deep_compression_t2": deep_compression_t2,
    "tflite_ptq_qat": tflite,
    "menghani_cifar10": menghani_cnn,
    "menghani_dwsep": separable,
}
