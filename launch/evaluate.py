# SPDX-License-Identifier: Apache-2.0
"""Evaluate the model of a workdir on one split of its data, each example once.

python -m launch.evaluate --workdir=runs/digits [--split=validation] [--step=best] [--json]
"""

import json
import sys

from absl import app, flags

from launch import quiet

_WORKDIR = flags.DEFINE_string("workdir", None, "A workdir that launch.train left.")
_SPLIT = flags.DEFINE_enum("split", "test", ["test", "validation"], "Which examples.")
_STEP = flags.DEFINE_string("step", "", '"latest", "best" or a number; "" = what the run selects.')
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data are, if not where they were.")
_JSON = flags.DEFINE_bool("json", False, "Print one line of JSON.")


def main(argv: list[str]) -> int:
    """Flags -> library."""
    quiet()
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    from efficient_layers import train

    step = int(_STEP.value) if _STEP.value.isdigit() else _STEP.value or None
    try:
        metrics = train.score(
            str(_WORKDIR.value), _SPLIT.value, step=step, data_dir=_DATA_DIR.value
        )
    except train.REFUSALS as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if _JSON.value:
        print(json.dumps(metrics))
    else:
        print("  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    return 0


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    sys.exit(app.run(main))
