# SPDX-License-Identifier: Apache-2.0
"""The table of lengths: crossovers, and a page that says what was measured."""

import json
from pathlib import Path

import pytest

from efficient_layers.evidence import attention_lengths

FOLDER = Path(__file__).parents[2] / "docs/benchmarks/attention_lengths"
pytestmark = pytest.mark.fast


def lengths(*ratios):
    """Every side `ratio` times as slow as softmax at 256, 512, ..."""
    bases = (attention_lengths.SOFTMAX, attention_lengths.CAUSAL)

    def sides(ratio):
        return {s: [1.0 if s in bases else ratio, 1.0] for s in attention_lengths.SIDES}

    return {str(256 * 2**i): sides(ratio) for i, ratio in enumerate(ratios)}


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [((2, 0.5, 0.1), "512"), ((0.5, 2, 0.9), "1024"), ((0.5, 0.5), "256"), ((0.5, 2), "not yet")],
)
def test_the_crossover_is_where_a_side_stays_faster(ratios, expected):
    assert attention_lengths.crossover(lengths(*ratios), "linear", 0) == expected
    assert attention_lengths.crossover(lengths(*ratios), "linear", 1) == "not yet"


def test_the_page_is_what_measured_json_says():
    everything = json.loads((FOLDER / "measured.json").read_text())
    assert (FOLDER / "README.md").read_text() == attention_lengths.page(everything)
    for entry in everything.values():
        for sides in entry["lengths"].values():
            assert set(sides) == set(attention_lengths.SIDES)


def test_a_length_is_recorded_beside_others(tmp_path):
    for n, sides in lengths(2.0, 0.5).items():
        attention_lengths.record(tmp_path, int(n), sides)
    text = (tmp_path / "README.md").read_text()
    assert "| linear | 2.0 | 0.5 | 512 |" in text
