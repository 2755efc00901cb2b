# SPDX-License-Identifier: Apache-2.0
"""vmap over weights costs no more than one call a member, of every layer with a card."""

import subprocess
import sys

import pytest

from efficient_layers.evidence.cards import CARDS


@pytest.mark.slow
@pytest.mark.alone
def test_members_together_are_no_slower_than_one_by_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.layers.vmap_speed"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "BAD" not in done.stdout
    assert done.stdout.count("ok ") == len(CARDS)
