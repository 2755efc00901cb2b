# SPDX-License-Identifier: Apache-2.0
"""Entry points: absl flags in, library calls out. `python -m launch.NAME --help`."""


def quiet() -> None:
    """Warnings only, unless --verbosity says otherwise: not every step of Orbax and XLA."""
    from absl import flags, logging  # here: the doctor also runs where absl is missing

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
