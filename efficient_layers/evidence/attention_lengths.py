# SPDX-License-Identifier: Apache-2.0
"""From which length each variant of attention is faster than softmax attention, measured.

Layers of 512 features, 8 heads of 64, batch 1, float32, projections included. Of every length all
sides are timed in turn (A B C A B C ...), forward and with all gradients.

docs/benchmarks/attention_lengths/measured.json   backend -> n -> side -> [forward, gradients] ms
docs/benchmarks/attention_lengths/README.md       the tables and crossovers, all of it
"""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers import layers, measure
from efficient_layers.evidence.globs import matching
from efficient_layers.evidence.jax_side import forward, gradients
from efficient_layers.measure.environment import cores

LENGTHS = (256, 512, 1024, 2048, 4096)
SOFTMAX, CAUSAL = "softmax", "softmax, causal"
_D, _H = 512, 8
Make = Callable[[int, nnx.Rngs], nnx.Module]

SIDES: Mapping[str, tuple[str, Make]] = {  # label: what it replaces, how to make it for n
    SOFTMAX: (SOFTMAX, lambda n, r: layers.MultiHeadAttention(_D, _H, rngs=r)),
    CAUSAL: (CAUSAL, lambda n, r: layers.MultiHeadAttention(_D, _H, causal=True, rngs=r)),
    "linear": (SOFTMAX, lambda n, r: layers.LinearAttention(_D, _H, rngs=r)),
    "Performer, 64 features": (
        SOFTMAX,
        lambda n, r: layers.Performer(_D, _H, num_features=64, rngs=r),
    ),
    "Linformer, rank 128": (
        SOFTMAX,
        lambda n, r: layers.Linformer(_D, _H, length=n, rank=128, rngs=r),
    ),
    "Nystrom, 64 landmarks": (SOFTMAX, lambda n, r: layers.NystromAttention(_D, _H, rngs=r)),
    "linear, causal": (CAUSAL, lambda n, r: layers.LinearAttention(_D, _H, causal=True, rngs=r)),
    "gated linear": (CAUSAL, lambda n, r: layers.GatedLinearAttention(_D, _H, rngs=r)),
    "DeltaNet": (CAUSAL, lambda n, r: layers.DeltaNet(_D, _H, rngs=r)),
}


def run(n: int, *, calls: int) -> dict[str, list[float]]:
    """Milliseconds (medians) of every side at length n: forward, forward and all gradients."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, n, _D), np.float32))
    found: dict[str, list[float]] = {label: [] for label in SIDES}
    for program in (forward, gradients):
        programs = {k: program(make(n, nnx.Rngs(0)), x) for k, (_, make) in SIDES.items()}
        for label, latency in measure.alternate(programs, calls=calls).items():
            found[label].append(latency.median_ms)
    return found


def measure_all(
    pattern: str, folder: Path, *, calls: int, say: Callable[..., None] = print
) -> None:
    """Measures and records the lengths that `pattern` names ("256,512"; "*": all)."""
    for n in map(int, matching(pattern, [str(n) for n in LENGTHS], "length")):
        found = run(n, calls=calls)
        record(folder, n, found)
        say(n, *(f"{side}: {ms[0]:.1f}, {ms[1]:.1f}" for side, ms in found.items()))


def record(folder: Path, n: int, found: Mapping[str, Sequence[float]]) -> None:
    """Puts a length into `measured.json` and writes the page anew."""
    path = folder / "measured.json"
    folder.mkdir(parents=True, exist_ok=True)
    everything = json.loads(path.read_text()) if path.exists() else {}
    device = jax.devices()[0]
    backend = everything.setdefault(device.platform, {"lengths": {}})
    kind = f"{cores()} CPU cores" if device.platform == "cpu" else device.device_kind
    day = datetime.date.today().isoformat()
    backend["where"] = f"{kind}; jax {jax.__version__}; {day}"
    backend["lengths"][str(n)] = found
    path.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")
    (folder / "README.md").write_text(page(everything))


def page(everything: Mapping[str, Any]) -> str:
    """The whole README of the folder."""
    parts = [
        "# Attention: from which length the linear variants are faster\n",
        "Milliseconds a call of layers of 512 features (8 heads of 64, batch 1, float32, "
        "projections included), medians of calls in turn. *Faster from* is the least measured "
        "length from which a side is faster than the softmax attention it replaces (causal ones: "
        "causal) at that length and all longer ones.\n",
        "Made by `python -m launch.benchmark --suite=attention_lengths --filter=256,512 --calls=5` "
        "(lengths, comma between; all that were measured stay).\n",
    ]
    for backend, entry in sorted(everything.items()):
        for mode, title in enumerate(("forward", "forward and gradients")):
            parts += [f"## {backend}: {title}\n", _table(entry["lengths"], mode), ""]
        parts.append(f"{entry['where']}.\n")
    return "\n".join(parts)


def crossover(lengths: Mapping[str, Mapping[str, Sequence[float]]], side: str, mode: int) -> str:
    """The least length from which `side` stays faster than what it replaces, in words."""
    base = SIDES[side][0]
    found = "not yet"
    for n in sorted(lengths, key=int, reverse=True):
        if lengths[n][side][mode] >= lengths[n][base][mode]:
            return found
        found = n
    return found


def _table(lengths: Mapping[str, Mapping[str, Sequence[float]]], mode: int) -> str:
    columns = sorted(lengths, key=int)
    lines = [f"| | {' | '.join(columns)} | faster from |", "|---" * (len(columns) + 2) + "|"]
    for side in SIDES:
        cells = [f"{lengths[n][side][mode]:.1f}" for n in columns]
        base = side in (SOFTMAX, CAUSAL)
        cells.append("" if base else crossover(lengths, side, mode))
        lines.append(f"| {side} | {' | '.join(cells)} |")
    return "\n".join(lines)
