# SPDX-License-Identifier: Apache-2.0
"""The verdict of `apply` compiles two models: only where a test looks at it."""

import sys

import pytest


@pytest.fixture(autouse=True)
def no_verdict(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests marked `verdict` measure; the others do without."""
    if request.node.get_closest_marker("verdict") is None:
        module = sys.modules["efficient_layers.compress.apply"]
        monkeypatch.setattr(module, "_verdict", lambda *_: None)
