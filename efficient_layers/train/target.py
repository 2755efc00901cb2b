# SPDX-License-Identifier: Apache-2.0
"""What a run is meant to reach: `--target=accuracy>=0.98`.

The loop notes when a target is first met, in seconds of training (time to accuracy: Coleman et al.,
DAWNBench, 2017). Compilation is counted and shown apart, evaluation is not counted.
"""

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Mapping

_OPS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"\s*([A-Za-z_][\w./-]*)\s*(>=|<=|>|<)\s*(\S+)\s*")


@dataclasses.dataclass(frozen=True)
class Target:
    """A metric, a comparison and a value: `Target.parse("accuracy>=0.98")`."""

    metric: str
    op: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "Target":
        """From `metric`, one of `>= <= > <`, and a number. Raises ValueError on another form."""
        match = _FORM.fullmatch(text)
        try:
            value = float(match[3]) if match else math.nan
        except ValueError:
            value = math.nan
        if not match or math.isnan(value):
            raise ValueError(
                "a target is a metric, one of >= <= > <, and a number, e.g. 'accuracy>=0.98'. "
                f"Got {text!r}."
            )
        return cls(match[1], match[2], value)

    def met(self, metrics: Mapping[str, float]) -> bool:
        """Whether `metrics` reaches the target; NaN never does.

        Raises:
          KeyError: `metrics` has no such name.
        """
        if self.metric not in metrics:
            known = ", ".join(sorted(metrics)) or "none"
            raise KeyError(f"target {self}: no metric {self.metric!r}, only {known}.")
        return bool(_OPS[self.op](float(metrics[self.metric]), self.value))

    def __str__(self) -> str:
        return f"{self.metric}{self.op}{self.value:g}"
