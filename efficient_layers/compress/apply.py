# SPDX-License-Identifier: Apache-2.0
"""`apply`: techniques on a model, in order; `rebuild`: the same structure again from the edits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from efficient_layers.compress.edits import checked, module_at, replay, variables
from efficient_layers.compress.log import Log, Row, Size
from efficient_layers.compress.source_line import source_line
from efficient_layers.compress.technique import Change, Context, Edit, Skip, Technique
from efficient_layers.compress.verdict import Verdict, compare, mean_loss
from efficient_layers.measure.cost import cost
from efficient_layers.measure.view import view
from efficient_layers.models.fields import nearest
from efficient_layers.models.paths import at, modules

Steps = Technique | Sequence["Steps"]


def apply(
    model: nnx.Module,
    steps: Steps,
    *,
    example: Any = None,
    data: Iterable | None = None,
    loss: Callable[[Any, Any], jax.Array] | None = None,
    verdict: bool = True,
) -> tuple[nnx.Module, Log]:
    """A smaller model and the log of what was done; `model` is left as it is.

    Steps run in order, those in nested lists too, each on what the one before it left. A module
    that two steps of one technique match belongs to the first of them. The result is in the mode
    of `model`, and an ordinary module: it trains, measures, is saved and compressed again.

    Args:
      model: any nnx module.
      example: an input, for techniques that trace; a tuple means `model(*x)`, a dict `model(**x)`.
      data: batches, for techniques that calibrate.
      loss: `loss(model, batch)` -> a number, for criteria that need gradients.
      verdict: where there is an example, both models are compiled and timed on it in turn, and
        the log says whether the result is smaller and whether it is faster (`log.verdict`); with
        `data` and `loss`, also the mean loss before and after. False saves these seconds.

    Raises:
      ValueError: a glob that matches nothing; a step whose modules all belong to earlier steps of
        the same technique; a step that needs an argument that is not given, before work starts.
      TypeError: a step that is no technique.
    """
    ordered = list(flat(steps))
    given = {"example": example, "data": data, "loss": loss}
    _check_needs(ordered, given)
    if isinstance(data, Iterator):
        data = list(data)
    small = _copy(model)
    log = Log(before=Size.of(model), macs_before=_first_macs(model, example))
    taken: dict[type, dict[str, Technique]] = {}
    for number, step in enumerate(ordered):
        seen = view(small)
        matched = _matched(seen, step, taken.setdefault(type(step), {}))
        answers = list(step.plan(Context(seen, matched, example, data, loss)))
        touchable = {**dict(matched), **{a.path: module_at(seen, a.path) for a in answers}}
        before = {path: Size.of(module) for path, module in touchable.items()}
        edits = _carry_out(small, step, answers)
        log.edits += edits
        log.rows += _rows(small, number, step, dict(matched), before, answers)
    log.after = Size.of(small)
    try:
        log.macs_after = _macs(small, example)
    except Exception as error:
        error.add_note(
            f"After {', '.join(map(str, ordered))} the model does not run on the example any more: "
            "its code uses what a module had and its replacement has not. Leave that module out."
        )
        raise
    if verdict and example is not None:
        log.verdict = _verdict(model, small, example, data, loss)
    return small, log


def _verdict(model: nnx.Module, small: nnx.Module, example: Any, data: Any, loss: Any) -> Verdict:
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(example) if getattr(leaf, "ndim", 0)}
    batch = sizes.pop() if len(sizes) == 1 else 1
    losses: list[dict[str, float]] = [{}, {}]
    if data is not None and loss is not None:
        losses = [{"loss": mean_loss(side, data, loss)} for side in (model, small)]
    return compare(model, small, example, batches=(batch,), quality=(losses[0], losses[1]))


def rebuild(model: nnx.Module, edits: Iterable[Edit]) -> nnx.Module:
    """The structure that `apply` gave, from its `log.edits` and the model it began with.

    `model` may be abstract (`nnx.eval_shape`), and is left as it is. Variables that the edits made
    or resized hold `jax.ShapeDtypeStruct`s, for a checkpoint to fill.

    Raises:
      ValueError: an edit that does not fit the model.
    """
    rebuilt = _copy(model)
    replay(rebuilt, edits)
    return rebuilt


def _macs(model: nnx.Module, example: Any) -> int | None:
    """Of the example, batch 1; None without an example."""
    return None if example is None else cost(model, example).macs


def _first_macs(model: nnx.Module, example: Any) -> int | None:
    try:
        return _macs(model, example)
    except Exception as error:
        error.add_note(f"The model cannot be traced on the example: {source_line(error)}.")
        raise


def _copy(model: nnx.Module) -> nnx.Module:
    return nnx.merge(*nnx.split(model), copy=True)


def flat(steps: Any) -> Iterator[Technique]:
    """The techniques in nested lists, in order.

    Raises:
      TypeError: something else among them.
    """
    if isinstance(steps, Technique):
        yield steps
    elif isinstance(steps, list | tuple):
        for step in steps:
            yield from flat(step)
    else:
        raise TypeError(
            "apply expects steps such as LowRank('head', energy=.95), in lists. "
            f"Got {steps!r} ({type(steps).__name__})."
        )


def _check_needs(steps: list[Technique], given: dict[str, Any]) -> None:
    lacks = [
        f"{step} needs {name}="
        for step in steps
        for name in sorted(step.needs)
        if given[name] is None
    ]
    if lacks:
        raise ValueError(f"apply: {'; '.join(lacks)}. Pass it to apply.")


def _matched(
    model: nnx.Module, step: Technique, taken: dict[str, Technique]
) -> tuple[tuple[str, nnx.Module], ...]:
    """What `step` matches and no earlier step of its technique took; these are taken now."""
    found = step.matches(model)
    if not found:
        known = [*modules(model), ("", model)]
        paths = [path for path, _ in known if path]
        of_type = [path for path, m in known if step.takes(m)]
        why = f"No module of type {step.type!r} is at such a path. " if of_type != paths else ""
        raise ValueError(f"{step} matches no module. {why}{nearest(step.path, paths)}")
    free = tuple((path, module) for path, module in found.items() if path not in taken)
    if not free:
        others = ", ".join(dict.fromkeys(str(taken[path]) for path in found))
        raise ValueError(
            f"{step} has nothing left: the first matching step of a technique wins, and {others} "
            "took all. Leave one out, or call apply once more on the result."
        )
    taken |= dict.fromkeys((path for path, _ in free), step)
    return free


def with_changes(model: nnx.Module, changes: Iterable[Change]) -> nnx.Module:
    """A copy of `model` with `changes` made."""
    copy = _copy(model)
    _carry_out(copy, "with_changes", list(changes))
    return copy


def _carry_out(model: nnx.Module, step: Any, answers: Iterable[Change | Skip]) -> list[Edit]:
    """Edits `model` in place, all edits first, then the values."""
    changes = [answer for answer in answers if isinstance(answer, Change)]
    edits = checked(edit for change in changes for edit in change.edits)
    replay(model, edits)
    for change in changes:
        for path, value in change.values.items():
            _fill(at(model, path), value, f"{step}: {path}")
    empty = [
        path for path, v in variables(model) if isinstance(v.get_value(), jax.ShapeDtypeStruct)
    ]
    if empty:
        raise ValueError(f"{step} made Variables and gave them no values: {', '.join(empty)}.")
    return edits


def _fill(variable: nnx.Variable, value: Any, where: str) -> None:
    if tuple(variable.shape) != tuple(value.shape):
        raise ValueError(
            f"{where} has the shape {tuple(variable.shape)}. Got an array of {value.shape}."
        )
    variable.set_value(jnp.asarray(value, variable.dtype))


def _rows(
    model: nnx.Module,
    number: int,
    step: Technique,
    matched: dict[str, nnx.Module],
    before: dict[str, Size],
    answers: list[Change | Skip],
) -> list[Row]:
    rows = []
    for answer in answers:
        size = before[answer.path]
        touched = isinstance(answer, Change)
        after = _after(model, answer) if isinstance(answer, Change) else size
        rows.append(Row(number, str(step), answer.path, touched, answer.why, size, after))
    answered = {answer.path for answer in answers}
    for path, module in matched.items():
        if path not in answered and before[path].bytes and _owns_variables(module):
            why = f"{type(step).__name__} takes no {type(module).__name__}"
            rows.append(Row(number, str(step), path, False, why, before[path], before[path]))
    return rows


def _after(model: nnx.Module, change: Change) -> Size:
    """A module that became another one holds nothing of its own."""
    if any(edit["op"] == "tie" and edit["path"] == change.path for edit in change.edits):
        return Size(0, 0)
    return Size.of(module_at(model, change.path))


def _owns_variables(module: nnx.Module) -> bool:
    return any(isinstance(value, nnx.Variable) for value in vars(module).values())
