# SPDX-License-Identifier: Apache-2.0
"""Depth removed: the least important residual blocks become their input."""

import dataclasses
from collections.abc import Iterable, Sequence

from flax import nnx

from efficient_layers.compress.apply import with_changes
from efficient_layers.compress.block_scores import NEEDS, block_scores
from efficient_layers.compress.edits import replace
from efficient_layers.compress.residual import residual_blocks
from efficient_layers.compress.target import goal_of, reach
from efficient_layers.compress.technique import Change, Context, Skip, Technique
from efficient_layers.layers import Identity

CRITERIA = tuple(NEEDS)


@dataclasses.dataclass(frozen=True)
class RemoveBlocks(Technique):
    """Whole residual blocks y = x + f(x) that `path` matches become `Identity`, y = x.

    Which modules are such blocks, and outside of loops, is found by tracing
    (`compress/residual.py`); a block that changes the shape or type of its input, returns more than
    an array, or is called more than once stays, and the log says why. Of blocks inside blocks, the
    outer can go. Scores: `compress/block_scores.py`, once, on the whole model.

    Names that a block wrote into `out` are gone if it wrote them itself; what the model writes of
    the block's output ("blocks/3") is then that of its input. Our causal language models decode
    without the block; methods of a block of somebody else are gone, and the log names them.

    Args:
      count: blocks that go.
      ratio: the share of the blocks that can go, rounded; one at the least.
      macs, params, bytes, latency_ms: in place of them, what the model may cost afterwards
        (`compress/target.py`): a number, or a share below 1 of what it costs now.
      criterion: similarity (needs data), taylor and loss (data and loss), last (nothing).

    References: Men et al., *ShortGPT: Layers in Large Language Models are More Redundant Than You
    Expect* (arXiv 2403.03853), section 3; Fan et al., *Reducing Transformer Depth on Demand with
    Structured Dropout* (arXiv 1909.11556), for removal after training. Differs from the first:
    any residual block, of convolutions too.

    Raises:
      ValueError: none or several of the five; a count that is no whole number, a ratio above 1, a
        criterion that is not known. From `apply`: no block can go, or fewer than count; a target
        that cannot be reached, with the best that can.
    """

    count: int | None = dataclasses.field(default=None, kw_only=True)
    ratio: float | None = dataclasses.field(default=None, kw_only=True)
    macs: float | None = dataclasses.field(default=None, kw_only=True)
    params: float | None = dataclasses.field(default=None, kw_only=True)
    bytes: float | None = dataclasses.field(default=None, kw_only=True)
    latency_ms: float | None = dataclasses.field(default=None, kw_only=True)
    criterion: str = dataclasses.field(default="similarity", kw_only=True)

    def __post_init__(self) -> None:
        what, goal = goal_of(self, "count", "ratio")
        if (what == "count" and goal != int(goal)) or (what == "ratio" and goal > 1):
            raise ValueError(
                "RemoveBlocks expects a count that is a whole number, or a ratio of at most 1. "
                f"Got {what}={goal}."
            )
        if self.criterion not in CRITERIA:
            raise ValueError(
                f"RemoveBlocks expects a criterion of {', '.join(CRITERIA)}. "
                f"Got {self.criterion!r}."
            )

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return NEEDS[self.criterion] | {"example"}

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        """A change a block that goes, a skip a module that stays."""
        modules = {path: module for path, module in context.matched if path}
        blocks = {p: m for p, m in modules.items() if not isinstance(m, nnx.List | nnx.Dict)}
        free, reasons = residual_blocks(context.model, list(blocks), context.example)
        if not free:
            shown = "; ".join(f"{path}: {why}" for path, why in list(reasons.items())[:3])
            raise ValueError(f"{self}: no matched module is a block that can go. {shown}.")
        scores = block_scores(self.criterion, context, free)
        order = sorted(free, key=lambda path: scores[path])
        gone = self._gone(context, order)
        for place, path in enumerate(order, 1):
            why = f"{self.criterion} {scores[path]:.4g}, {place}. of {len(order)}"
            if path in gone:
                yield _removed(path, blocks[path], f"removed: {why}")
            else:
                yield Skip(path, f"kept: {why}")
        yield from (Skip(path, why) for path, why in reasons.items())

    def _gone(self, context: Context, order: Sequence[str]) -> Sequence[str]:
        """How many of the blocks, least important first, go."""
        what, goal = goal_of(self, "count", "ratio")
        if what == "count":
            if goal > len(order):
                raise ValueError(f"{self}: {len(order)} of the matched modules can go, no more.")
            return order[: int(goal)]
        if what == "ratio":
            return order[: max(1, round(goal * len(order)))]
        modules = dict(context.matched)

        def without(gone: Sequence[str]) -> nnx.Module:
            return with_changes(context.model, [_removed(p, modules[p], "") for p in gone])

        return reach(
            what,
            goal,
            start=context.model,
            example=context.example,
            build=lambda strength: order[: round(strength * len(order))],
            model_of=without,
            steps=len(order).bit_length() + 1,
            who=self,
            limit=f"without all {len(order)} blocks that can go",
        )


def _removed(path: str, block: nnx.Module, why: str) -> Change:
    lost = _methods(type(block)) - _methods(Identity)
    if lost:
        why += f"; its methods are gone: {', '.join(sorted(lost))}"
    return Change(path, why, (replace(path, "Identity"),))


def _methods(cls: type) -> set[str]:
    """Public methods that a class adds to those of every module."""
    known = {name for name in dir(cls) if callable(getattr(cls, name))} - set(dir(nnx.Module))
    return {name for name in known if not name.startswith("_")}
