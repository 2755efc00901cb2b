# SPDX-License-Identifier: Apache-2.0
"""Writes what was measured into the cards: `measured.json`, the tables in the pages, the index.

docs/layers/measured.json     card -> backend -> {"where", "date", "rows"}: the only source
docs/layers/<card>.md         its table, between `<!-- measured -->` and `<!-- /measured -->`
docs/layers/README.md         the index, all of it
"""

import dataclasses
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax

from efficient_layers.evidence.cards.card import Card
from efficient_layers.evidence.cards.compare import Compared
from efficient_layers.measure.environment import cores

_BLOCK = re.compile(r"<!-- measured -->.*?<!-- /measured -->", re.S)
_COMMAND = "python -m launch.benchmark --suite=cards"


def record(folder: Path, card: Card, rows: Sequence[Compared]) -> None:
    """Puts the rows of `card` on this backend into `measured.json`."""
    path = folder / "measured.json"
    everything = _read(path)
    device = jax.devices()[0]
    entry = {
        "where": f"{_device(device)}; jax {jax.__version__}, flax {flax.__version__}",
        "date": datetime.date.today().isoformat(),
        "x": list(card.x),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    everything.setdefault(card.name, {})[device.platform] = entry
    path.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")


def _device(device: jax.Device) -> str:
    return f"{cores()} CPU cores" if device.platform == "cpu" else device.device_kind


def render(folder: Path, groups: Mapping[str, Sequence[Card]]) -> list[Path]:
    """Writes all tables and the index from `measured.json`; the files that it changed.

    Raises:
      ValueError: a card has no page, or its page has no place for the table.
    """
    everything = _read(folder / "measured.json")
    pages = {folder / "README.md": _index(folder, groups, everything)}
    for card in (card for group in groups.values() for card in group):
        path = folder / f"{card.name}.md"
        text = path.read_text() if path.exists() else ""
        place = _BLOCK.search(text)
        if place is None:
            raise ValueError(
                f"{path} must hold the lines '<!-- measured -->' and '<!-- /measured -->'."
            )
        table = _tables(card, everything.get(card.name, {}))
        block = f"<!-- measured -->\n{table}\n<!-- /measured -->"
        pages[path] = text[: place.start()] + block + text[place.end() :]
    changed = [p for p, text in pages.items() if not p.exists() or p.read_text() != text]
    for path in changed:
        path.write_text(pages[path])
    return changed


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _tables(card: Card, measured: Mapping[str, Any]) -> str:
    if not measured:
        return f"Not measured yet: `{_COMMAND} --filter={card.name}`."
    parts = [_table(card, backend, entry) for backend, entry in sorted(measured.items())]
    return "\n\n".join(parts)


def _table(card: Card, backend: str, entry: Mapping[str, Any]) -> str:
    lines = [
        "| | params | MACs | KB | forward ms | + gradients ms | times as fast | + gradients |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in entry["rows"]:
        numbers = (row["forward_ms"], row["training_ms"])
        ratios = (row["forward_ratio"], row["training_ratio"])
        cells = [row["label"], f"{row['params']:,}", f"{row['macs']:,}"]
        cells.append(f"{row['weight_bytes'] / 1000:,.0f}")
        cells += [f"{ms:.2f}" for ms in numbers] + [f"{ratio:.2f}" for ratio in ratios]
        lines.append(f"| {' | '.join(cells)} |")
    shape = "x".join(map(str, entry["x"]))
    kind = "float32" if card.vocabulary is None else f"tokens below {card.vocabulary:,}"
    source = f"Input {shape}, {kind}; {entry['where']}; {entry['date']}; "
    source += f"`{_COMMAND} --filter={card.name}`."
    return "\n".join([*lines, "", _verdict(backend, entry["rows"]), "", source])


def _verdict(backend: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Where the layer loses to what it replaces, in words made from the numbers."""
    base, *sides = rows
    slow = []
    for row in sides:
        modes = (("forward", "forward_ratio"), ("with gradients", "training_ratio"))
        lost = [f"{row[key]:.2f} {name}" for name, key in modes if row[key] < 1]
        if lost:
            slow.append(f"{row['label']} ({', '.join(lost)})")
    if slow:
        return f"**Slower than {base['label']} on {backend}**: {'; '.join(slow)}."
    return f"No setting is slower than {base['label']} on {backend}."


def _index(
    folder: Path, groups: Mapping[str, Sequence[Card]], everything: Mapping[str, Any]
) -> str:
    title = "# The layers: which to choose\n\nMade by `" + _COMMAND + "` from `measured.json`.\n"
    legend = (
        "Each row compares the card's best setting with what it replaces: `params`, `MACs` and "
        "`bytes` (of weights) are shares of the baseline's, `forward` and `with gradients` say how "
        "many times as fast it is (below 1: slower).\n"
    )
    parts = [title, legend]
    for name, cards in groups.items():
        parts.append(f"## {name}\n")
        parts.append(
            "| card | layers | pays for | backend | params | MACs | bytes | forward "
            "| with gradients |"
        )
        parts.append("|---|---|---|---|---|---|---|---|---|")
        for card in cards:
            parts += _lines(card, everything.get(card.name, {}))
        parts.append("")
    return "\n".join(parts)


def _lines(card: Card, measured: Mapping[str, Any]) -> list[str]:
    names = ", ".join(f"`{name}`" for name in card.layers)
    head = f"| [{card.name}]({card.name}.md) | {names} | {card.pays} |"
    if not measured:
        return [f"{head} - | - | - | - | - | - |"]
    lines = []
    for backend, entry in sorted(measured.items()):
        base, *sides = entry["rows"]
        best = max(sides, key=lambda row: row["forward_ratio"])
        shares = [_share(best[key], base[key]) for key in ("params", "macs", "weight_bytes")]
        ratios = [f"{best[key]:.2f}" for key in ("forward_ratio", "training_ratio")]
        lines.append(f"{head} {backend} | {' | '.join([*shares, *ratios])} |")
    return lines


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "-"
