# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them: three significant digits and a unit.

Every function takes what a JSON file may hold and gives `MISSING` for what is not a finite number.
"""

import math
from typing import Any

MISSING = "\u2013"
_DECIMAL = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
_NBSP = "\u00a0"


def number(value: Any) -> float | None:
    """`value` as a finite float, or None: strings, booleans, NaN and infinities are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def digits(value: Any, significant: int = 3) -> str:
    """Plain decimal notation, e.g. 0.0123, 12.3, 1,230; exponents only beyond 1e-4 and 1e15."""
    x = number(value)
    if x is None:
        return MISSING
    if x == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(x)))
    if magnitude < -4 or magnitude >= 15:
        return f"{x:.{significant - 1}e}"
    decimals = max(0, significant - 1 - magnitude)
    text = f"{x:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: Any) -> str:
    """A count with an SI letter: 950, 12.3 k, 3.5 M."""
    return _scaled(value, _DECIMAL, "")


def exact(value: Any) -> str:
    """A whole number in full, thousands apart: 3,504,872."""
    x = number(value)
    return MISSING if x is None else f"{x:,.0f}"


def size(value: Any) -> str:
    """Bytes in powers of 1,024: 512 B, 1.5 KiB."""
    return _scaled(value, _BINARY, "B")


def percent(value: Any, decimals: int = 1) -> str:
    """A share in [0, 1] as a percentage."""
    x = number(value)
    return MISSING if x is None else f"{100 * x:.{decimals}f}{_NBSP}%"


def milliseconds(value: Any) -> str:
    """A time in milliseconds with the unit that suits it (µs, ms, s)."""
    x = number(value)
    if x is None:
        return MISSING
    if abs(x) < 1 and x != 0:
        return f"{digits(1000 * x)}{_NBSP}µs"
    return f"{digits(x)}{_NBSP}ms" if abs(x) < 1000 else seconds(x / 1000)


def seconds(value: Any) -> str:
    """A time in seconds: 0.42 s, 48.1 s, 3 min 20 s, 2 h 5 min."""
    x = number(value)
    if x is None:
        return MISSING
    if abs(x) < 120:
        return f"{digits(x)}{_NBSP}s"
    minutes, rest = divmod(round(x), 60)
    if minutes < 120:
        return f"{minutes}{_NBSP}min {rest}{_NBSP}s"
    return f"{minutes // 60:,}{_NBSP}h {minutes % 60}{_NBSP}min"


def _scaled(value: Any, units: tuple[tuple[float, str], ...], smallest: str) -> str:
    x = number(value)
    if x is None:
        return MISSING
    for scale, letter in units:
        if abs(x) >= scale:
            return f"{digits(x / scale)}{_NBSP}{letter}"
    return f"{digits(x)}{_NBSP}{smallest}" if smallest else digits(x)
