# SPDX-License-Identifier: Apache-2.0
"""Entry points: absl flags in, library calls out. `python -m launch.NAME --help`."""
