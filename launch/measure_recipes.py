# SPDX-License-Identifier: Apache-2.0
r"""Train an experiment with several seeds, compress each by several recipes, and write the table.

    python -m launch.measure_recipes --config=configs/digits.py --seeds=0,1,2,3,4 \
        --recipes=configs/recipes/int8.py,configs/recipes/qat.py:int4 \
        --workdirs=runs/digits_recipes --out=docs/compress/measured/digits

Run the same command again to go on where it stopped; what is done is read, not done again.
"""

import shlex
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from launch import quiet, read_config

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment (configs/*.py).")
_RECIPES = flags.DEFINE_list("recipes", None, "Recipe files, FILE.py or FILE.py:ARGUMENT.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_WORKDIRS = flags.DEFINE_string("workdirs", None, "Folder of the workdirs.")
_OUT = flags.DEFINE_string("out", None, "The table, without its ending.")
_TUNE = flags.DEFINE_string("tune", "", 'Length of every training phase: "1 epoch"; "": as it is.')
_AGAIN = flags.DEFINE_bool("time_again", False, "Measure latency of finished results anew.")
_METRIC = flags.DEFINE_string("metric", "test_accuracy", "What is compared.")


def _recipe(spec: str) -> ConfigDict:
    """The recipe of a file, its training phases as long as --tune says."""
    recipe = read_config(spec)
    for phase in recipe.phases.values():
        if "train" in phase and _TUNE.value:
            phase.train.train.duration = _TUNE.value
    return recipe


def main(argv: list[str]) -> int:
    """Flags -> library."""
    quiet()
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    from efficient_layers import ops, train
    from efficient_layers.evidence import compression

    ops.keep_freed_memory()
    try:
        recipes = {
            Path(s).name.replace(".py", "").replace(":", "-"): s for s in _RECIPES.value or []
        }
        records = compression.run(
            _CONFIG.value,
            {name: _recipe(spec) for name, spec in recipes.items()},
            [int(seed) for seed in _SEEDS.value],
            Path(str(_WORKDIRS.value)),
            metric=_METRIC.value,
            time_again=_AGAIN.value,
        )
    except (*train.REFUSALS, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    out = Path(str(_OUT.value))
    command = "python -m launch.measure_recipes " + shlex.join(sys.argv[1:])
    compression.write(records, out, f"Recipes on {Path(out).name}", command)
    print(f"wrote {out}.md")
    return 0


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "recipes", "workdirs", "out"])
    sys.exit(app.run(main))
