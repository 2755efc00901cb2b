# SPDX-License-Identifier: Apache-2.0
"""The account of a bad step: which rows were in the batch, which gradients were not finite."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class NonFiniteError(RuntimeError):
    """A loss or gradient was not finite (or spiked) and the guard's policy stops the run."""


def write_account(
    folder: Path,
    step: int,
    metrics: Mapping[str, float],
    grad_norms: Mapping[str, float],
    index: Sequence[int] | np.ndarray | None,
) -> str:
    """Writes `folder/step_<step>.json` and returns one sentence that says what happened."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step}.json"
    account = {
        "step": step,
        "metrics": dict(metrics),
        "grad_norms": dict(grad_norms),
        "examples": None if index is None else np.asarray(index).tolist(),
    }
    path.write_text(json.dumps(_writable(account), indent=1))
    bad = sum(not math.isfinite(norm) for norm in grad_norms.values())
    return (
        f"step {step}: loss {metrics['loss']:g}, gradient norm {metrics['grad_norm']:g}; the "
        f"update was dropped. The batch's rows and the norm of each parameter's gradient ({bad} "
        f"not finite) are in {path}"
    )


def _writable(tree: Any) -> Any:
    """The tree with non-finite numbers as strings: JSON has no word for them."""
    if isinstance(tree, dict):
        return {name: _writable(value) for name, value in tree.items()}
    return str(tree) if isinstance(tree, float) and not math.isfinite(tree) else tree
