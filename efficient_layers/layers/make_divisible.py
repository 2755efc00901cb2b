# SPDX-License-Identifier: Apache-2.0
"""Rounding of channel counts."""


def make_divisible(value: float, divisor: int = 8, minimum: int | None = None) -> int:
    """`value` rounded to the nearest multiple of `divisor`, never more than 10 % below `value`.

    The rule that MobileNet widths follow: at least `minimum` (default: `divisor`), halves round up.

    Reference: Sandler et al., *MobileNetV2* (arXiv 1801.04381), the authors' code.

    >>> from efficient_layers.layers import make_divisible
    >>> make_divisible(32 * 0.35), make_divisible(1280 * 1.4)
    (16, 1792)

    Raises:
      ValueError: `divisor` is not positive.
    """
    if divisor < 1:
        raise ValueError(f"make_divisible expects a divisor of at least 1. Got {divisor}.")
    rounded = max(minimum or divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
