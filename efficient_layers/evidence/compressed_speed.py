# SPDX-License-Identifier: Apache-2.0
"""How fast whole models are after a compression that needs no training: before and after in turn.

Weights are random: what is measured is time, bytes and MACs, not quality.
"""

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from efficient_layers import compress, models
from efficient_layers.compress import Verdict
from efficient_layers.evidence.globs import matching

BATCHES = (1, 16)
_HALF = compress.RemoveChannels("**", macs=0.5)
_HALF_BY_8 = compress.RemoveChannels("**", macs=0.5, round_to=8)
_INT8 = compress.Quantize("**", activations="dynamic")

CASES: Mapping[str, tuple[str, tuple[compress.Technique, ...]]] = {  # name: model, steps
    "mobilenet_v2/half_the_macs": ("mobilenetv2_100", (_HALF,)),
    "mobilenet_v2/half_the_macs_by_8": ("mobilenetv2_100", (_HALF_BY_8,)),
    "mobilenet_v2/folded": ("mobilenetv2_100", (compress.FoldBatchNorm(),)),
    "mobilenet_v2/int8": ("mobilenetv2_100", (compress.FoldBatchNorm(), _INT8)),
    "resnet50/half_the_macs": ("resnet50", (_HALF_BY_8,)),
    "vit_tiny/half_the_macs": ("vit_tiny_patch16_224", (_HALF_BY_8,)),
}


def run(name: str, *, calls: int) -> Verdict:
    """One case at 224x224, batch 1 and 16."""
    model_name, steps = CASES[name]
    model = models.create(model_name, rngs=nnx.Rngs(0))
    x = np.asarray(jax.random.normal(jax.random.key(0), (1, 224, 224, 3)))
    small, _ = compress.apply(model, steps, example=x, verdict=False)
    return compress.compare(model, small, x, batches=BATCHES, calls=calls)


def measure_all(globs: str, folder: Path, *, calls: int, say: Callable[..., None] = print) -> None:
    """Runs the cases that the globs match and writes FOLDER/README.md, a row each."""
    heads = ["case", "bytes", "MACs", *(f"speed, batch {b}" for b in BATCHES)]
    heads += [f"ms, batch {b}, before -> after" for b in BATCHES]
    rows = [heads, ["---" for _ in heads]]
    device = ""
    for name in matching(globs, list(CASES), "case"):
        verdict = run(name, calls=calls)
        device = verdict.device
        before, after = verdict.before, verdict.after
        row = [name, f"{verdict.smaller:.2f}", f"{before.macs / after.macs:.2f}"]
        row += [f"{ratio:.2f}" for ratio in verdict.faster.values()]
        row += [f"{ms:.1f} -> {after.latency_ms[b]:.1f}" for b, ms in before.latency_ms.items()]
        rows.append(row)
        say(f"{name}: {verdict.words}")
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "README.md"
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    text = [
        "# Compressed models, before and after",
        "",
        "`python -m launch.benchmark --suite=compressed`; 224x224, random weights, float32. Ratios "
        f"are before / after: above 1 is smaller or faster. Medians of {calls} calls in turn.",
        "",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        f"{day}; {device}; jax {jax.__version__}.",
        "",
    ]
    page.write_text("\n".join(text), encoding="utf-8")
    say(f"wrote {page}")
