# SPDX-License-Identifier: Apache-2.0
r"""Compress the model of a workdir by a recipe; run the same command again to go on.

    python -m launch.compress --workdir=runs/digits --recipe=configs/recipes/int8.py --out=runs/int8
    python -m launch.compress --workdir=runs/digits --recipe=configs/recipes/chain.py --out=runs/c \
        --recipe.phases.tune.train.train.duration="5 epochs"
    python -m launch.compress --workdir=runs/digits --recipe=configs/recipes/chain.py --explain

Exit codes: 0 finished; 75 interrupted by a signal or --max_runtime_s, saved, run again to go on;
1 error.
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from launch import quiet

_WORKDIR = flags.DEFINE_string("workdir", None, "The run whose model is compressed; left as it is.")
_RECIPE = config_flags.DEFINE_config_file("recipe", None, "Recipe (configs/recipes/*.py).")
_OUT = flags.DEFINE_string("out", None, "Workdir of the result; made if absent.")
_EXPLAIN = flags.DEFINE_bool("explain", False, "Print what each step's glob matches; then exit.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data are, if not where they were.")
_RUNTIME = flags.DEFINE_float("max_runtime_s", None, "Save and exit with 75 after this long.", 0)


def main(argv: list[str]) -> int:
    """Flags -> library."""
    quiet()
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    from efficient_layers import ops, train  # after the flags: --help needs no JAX

    if _EXPLAIN.value:
        return train.explain_recipe(str(_WORKDIR.value), _RECIPE.value)
    if not _OUT.value:
        raise app.UsageError("--out=DIR is needed: where should the result live?")
    ops.keep_freed_memory()
    return train.compress_main(
        str(_WORKDIR.value),
        _RECIPE.value,
        _OUT.value,
        data_dir=_DATA_DIR.value,
        max_runtime_s=_RUNTIME.value,
    )


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "recipe"])
    sys.exit(app.run(main))
