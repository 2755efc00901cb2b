# SPDX-License-Identifier: Apache-2.0
"""A printed cell against what was computed for it."""

import dataclasses
import re
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Literal

from efficient_layers.evidence.paper_tables import Cell, Misprint

Kind = Literal[
    "exact",
    "rounds to",
    "truncates to",
    "known misprint",
    "does not reproduce",
    "needs data",
    "not computed",
]
KINDS: tuple[Kind, ...] = Kind.__args__  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Computed:
    """A number in the column's unit, or a word or truth value to compare as it is.

    Attributes:
      slack: by how much `value` may be off either way, where it comes from rounded cells.
      unit: what the print was rounded to, where that is coarser than its last digit (15300: 100).
    """

    value: Fraction | str | bool
    slack: Fraction = Fraction(0)
    unit: Fraction | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`computed` as text with two more digits than the print; `remark`: correction or reason."""

    kind: Kind
    computed: str = ""
    remark: str = ""


def judge(
    published: Cell, computed: Computed | str | None, misprint: Misprint | None = None
) -> Verdict:
    """What to say of a cell.

    Args:
      computed: a str is the reason why there is nothing; None: it needs data or a device.

    Raises:
      ValueError: a correction that is not what was computed either.
    """
    if isinstance(computed, str):
        return Verdict("not computed", remark=computed)
    if computed is None:
        remark = f"misprint for {misprint.correction}: {misprint.why}" if misprint else ""
        return Verdict("needs data", remark=remark)
    if isinstance(computed.value, str | bool):
        kind: Kind = "exact" if computed.value == published else "does not reproduce"
        return Verdict(kind, str(computed.value))
    printed = number(published)
    text = _text(computed.value, printed)
    if misprint:
        if _compare(number(misprint.correction), computed) not in KINDS[:2]:
            raise ValueError(
                f"The correction {misprint.correction} of {misprint.row}, {misprint.column} is not "
                f"what was computed, {text}. Correct third_party/paper_tables."
            )
        return Verdict("known misprint", text, f"{misprint.correction} ({misprint.why})")
    kind = _compare(printed, computed)
    return Verdict(kind, text, _off(printed, computed.value) if kind == KINDS[4] else "")


def number(cell: Cell) -> Decimal:
    """The number in a cell, with its printed digits: "27 KB" -> 27.

    Raises:
      ValueError: there is none.
    """
    found = re.search(r"-?\d+(\.\d+)?", str(cell))
    if not found:
        raise ValueError(f"Expected a cell with a number in it. Got {cell!r}.")
    return Decimal(found[0])


def _compare(printed: Decimal, computed: Computed) -> Kind:
    assert isinstance(computed.value, Fraction)
    value, shown = computed.value, Fraction(printed)
    if value == shown:
        return "exact"
    unit = computed.unit or _last_digit(printed)
    if value - computed.slack <= shown + unit / 2 and value + computed.slack >= shown - unit / 2:
        return "rounds to"
    # computed numbers are not negative
    return "truncates to" if shown <= value < shown + unit else "does not reproduce"


def _last_digit(printed: Decimal) -> Fraction:
    exponent = printed.as_tuple().exponent
    assert isinstance(exponent, int)
    return Fraction(10) ** exponent


def _text(value: Fraction, printed: Decimal) -> str:
    """`value` with two more digits than `printed`, or all of it where it is an integer."""
    if value.denominator == 1:
        return str(value.numerator)
    exponent = printed.as_tuple().exponent
    assert isinstance(exponent, int)
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    short = exact.quantize(Decimal(1).scaleb(exponent - 2), ROUND_HALF_UP)
    # 99.9996 must not read as the 100.00 that it does not reach
    return str(exact.quantize(short, ROUND_DOWN) if short == printed else short)


def _off(printed: Decimal, value: Fraction) -> str:
    return f"{float(value / Fraction(printed) - 1):+.2%}" if printed else ""
