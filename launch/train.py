# SPDX-License-Identifier: Apache-2.0
r"""Train a model from a configuration; run the same command again to go on where it stopped.

    python -m launch.train --config=configs/digits.py --workdir=runs/digits
    python -m launch.train --config=configs/cifar10.py:mobilenet_v2 --workdir=runs/c10 \
        --config.data.data_dir=$TFDS_DATA_DIR --config.train.duration="5 epochs"

Exit codes: 0 finished; 75 interrupted by a signal or --max_runtime_s, saved, run again to go on;
1 error. A second SIGTERM or Ctrl-C leaves at once without saving.
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from launch import quiet

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file (configs/*.py).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; made if absent.")
_SMOKE = flags.DEFINE_bool("smoke", False, "Run 2 steps on stand-in data of the same shape.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print shapes, cost, sharding, memory; then exit.")
_STOP = flags.DEFINE_integer("stop_after_steps", None, "Stop here; the schedule is unchanged.", 1)
_OVERFIT = flags.DEFINE_integer("overfit_batches", 0, "Train on this many fixed batches.", 0)
_RUNTIME = flags.DEFINE_float("max_runtime_s", None, "Save and exit with 75 after this long.", 0)
_TARGET = flags.DEFINE_string("target", "", 'Time to this validation target: "accuracy>=0.98".')
_STOP_AT_TARGET = flags.DEFINE_bool("stop_at_target", False, "End the run when it is met.")
_CACHE = flags.DEFINE_string("compilation_cache_dir", "", "Keep compiled programs here.")

_KEEP = flags.DEFINE_bool(
    "keep_freed_memory",
    True,
    "CPU: keep the memory of a step for the next (1.4x as fast); steps of a few ms may lose.",
)


def main(argv: list[str]) -> int:
    """Flags -> library."""
    quiet()
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    from efficient_layers import ops, train  # after the flags: --help needs no JAX

    if _KEEP.value:
        ops.keep_freed_memory()

    if _CACHE.value:
        train.use_compilation_cache(_CACHE.value)
    options = train.Options(
        stop_after_steps=2 if _SMOKE.value else _STOP.value,
        overfit_batches=_OVERFIT.value,
        max_runtime_s=_RUNTIME.value,
        target=_TARGET.value,
        stop_at_target=_STOP_AT_TARGET.value,
        smoke=_SMOKE.value,
    )
    if _DRY_RUN.value:
        try:
            print(train.dry_run(_CONFIG.value, options))
        except train.REFUSALS as error:
            sys.exit(f"{type(error).__name__}: {error}")
        return 0
    if not _WORKDIR.value:
        raise app.UsageError("--workdir=DIR is needed: where should the run live?")
    return train.main(_CONFIG.value, _WORKDIR.value, options)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    sys.exit(app.run(main))
