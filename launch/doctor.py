# SPDX-License-Identifier: Apache-2.0
"""What is here, what is missing, and the command for each missing thing.

python -m launch.doctor
python -m launch.doctor --data_dir=/data/tfds --json

Exits with 0 unless something required is broken; absent extras are only listed.
"""

import json
import sys

from launch import quiet

try:
    import rich
    from absl import app, flags

    from efficient_layers.evidence import doctor
except ImportError as error:  # nothing more can be said before the packages are there
    sys.exit(
        f"launch.doctor: {error}.\nThe packages a run needs are not all installed: "
        f"{sys.executable} -m pip install -r requirements.txt   (or `make run`, which does it)"
    )

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where TFDS data sets are prepared (default: TFDS's own place)."
)
_WORKDIR = flags.DEFINE_string("workdir", "runs", "Where runs are to be written.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON in place of the table.")


def main(argv: list[str]) -> None:
    """Prints the findings; exits with 1 where something required is broken."""
    quiet()
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Got {argv[1:]}.")
    findings = doctor.examine(data_dir=_DATA_DIR.value, workdir=_WORKDIR.value)
    good = doctor.ok(findings)
    if _JSON.value:
        print(json.dumps(doctor.to_json(findings), indent=2))
    else:
        rich.print(doctor.table(findings))
        print("\nWhat is not here, and how to get it:", *doctor.commands(findings), sep="\n  ")
        print("\nAll that is required is here." if good else "\nSomething required is broken (!).")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    app.run(main)
