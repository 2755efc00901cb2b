# SPDX-License-Identifier: Apache-2.0
"""Every layer has a card; its page holds what was measured, and code that runs."""

import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from efficient_layers import measure
from efficient_layers.evidence import cards
from tests.layers.case import registered

pytestmark = pytest.mark.fast
FOLDER = Path(__file__).parents[2] / "docs/layers"


def test_every_layer_is_on_a_card() -> None:
    named = {name for card in cards.CARDS.values() for name in card.layers}
    assert set(registered()) <= named
    assert len(cards.CARDS) == sum(len(group) for group in cards.GROUPS.values())


def test_pages_and_index_are_what_measured_json_says(tmp_path: Path) -> None:
    """A page edited by hand inside its table, or one not written anew, would change here."""
    for path in FOLDER.iterdir():
        shutil.copy(path, tmp_path / path.name)
    assert cards.render(tmp_path, cards.GROUPS) == []


def test_every_card_was_measured_as_it_is_declared() -> None:
    measured = json.loads((FOLDER / "measured.json").read_text())
    for card in cards.CARDS.values():
        for entry in measured[card.name].values():
            labels = [row["label"] for row in entry["rows"]]
            assert labels == [card.baseline.label, *(side.label for side in card.sides)]
            assert entry["x"] == list(card.x)


@pytest.mark.parametrize("name", sorted(cards.CARDS))
def test_counts_in_the_table_are_those_of_the_layer(name: str) -> None:
    card = cards.CARDS[name]
    row = json.loads((FOLDER / "measured.json").read_text())[name]["cpu"]["rows"][1]
    x = jax.ShapeDtypeStruct(card.x, jnp.float32 if card.vocabulary is None else jnp.int32)
    module = nnx.eval_shape(lambda: card.sides[0].make(nnx.Rngs(0)))
    cost = measure.cost(module, x)
    counts = (row["params"], row["macs"], row["weight_bytes"])
    assert counts == (cost.params, cost.macs, cost.weight_bytes)


@pytest.mark.slow  # eager: every operation is compiled by itself
@pytest.mark.parametrize("name", sorted(cards.CARDS))
def test_the_example_runs(name: str) -> None:
    code = re.findall(r"```python\n(.*?)```", (FOLDER / f"{name}.md").read_text(), re.S)
    assert code, f"docs/layers/{name}.md has no example"
    for block in code:
        exec(block, {})


def test_no_page_without_a_card() -> None:
    pages = {path.stem for path in FOLDER.glob("*.md")} - {"README"}
    assert pages == set(cards.CARDS)


def test_a_page_without_a_place_for_the_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold the lines"):
        cards.render(tmp_path, cards.GROUPS)


def test_a_slower_layer_is_called_slower(tmp_path: Path) -> None:
    card = cards.CARDS["depthwise_conv"]
    rows = [cards.Compared("dense", 10, 10, 40, 1.0, 2.0, 1.0, 1.0)]
    rows += [cards.Compared("thin", 1, 1, 4, 2.0, 1.0, 0.5, 2.0)]
    (tmp_path / f"{card.name}.md").write_text("<!-- measured -->\n<!-- /measured -->\n")
    cards.record(tmp_path, card, rows)
    cards.render(tmp_path, {"One": [card]})
    text = (tmp_path / f"{card.name}.md").read_text()
    assert "**Slower than dense on cpu**: thin (0.50 forward)." in text
    assert "| 0.10 | 0.10 | 0.10 | 0.50 | 2.00 |" in (tmp_path / "README.md").read_text()


def test_an_unknown_card_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"matches no card"):
        cards.select("no_such*")
