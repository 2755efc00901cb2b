# SPDX-License-Identifier: Apache-2.0
"""Which modules the globs of steps match, without compressing anything."""

from collections.abc import Iterator

from flax import nnx

from efficient_layers.compress.apply import Steps, flat
from efficient_layers.compress.technique import Technique

_SHOWN = 12  # paths of one kind


def explain(model: nnx.Module, steps: Steps) -> str:
    """A paragraph a step: how many modules of which type it matches, or comes too late for.

    Steps are matched against `model` as it is, not as the steps before leave it.
    """
    taken: dict[type, dict[str, Technique]] = {}
    lines: list[str] = []
    for step in flat(steps):
        lines += [str(step), *_matches(model, step, taken.setdefault(type(step), {}))]
    return "\n".join(lines)


def _matches(model: nnx.Module, step: Technique, taken: dict[str, Technique]) -> Iterator[str]:
    found = step.matches(model)
    kinds: dict[str, list[str]] = {}
    for path, module in found.items():
        if path in taken:
            yield f"  {path or '(root)'}: {taken[path]} comes first"
        elif any(isinstance(value, nnx.Variable) for value in vars(module).values()):
            kinds.setdefault(type(module).__name__, []).append(path or "(root)")
    taken |= dict.fromkeys(found.keys() - taken.keys(), step)
    for kind, paths in kinds.items():
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        yield f"  {len(paths)} {kind}: {', '.join(paths[:_SHOWN])}{more}"
    if not found:
        yield "  matches nothing in the model as it is"
