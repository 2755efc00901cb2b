# SPDX-License-Identifier: Apache-2.0
"""Cards of dense layers that hold fewer numbers than a full matrix, or use fewer at a time.

All but the last stand beside `nnx.Linear` 768 -> 768 on 64 rows and have a side at about a seventh
of its weights, so that their times can be read across cards.
"""

from flax import nnx

from efficient_layers import layers
from efficient_layers.evidence.cards.card import Card, Side

_ROWS = (64, 768)
_DENSE = Side("nnx.Linear 768 -> 768", lambda rngs: nnx.Linear(768, 768, rngs=rngs))


def _adapted(rngs: nnx.Rngs) -> layers.LoRALinear:
    return layers.LoRALinear(768, 768, rank=8, rngs=rngs)


def _merged(rngs: nnx.Rngs) -> nnx.Module:
    return _adapted(rngs).merge()


def _feed_forward(rngs: nnx.Rngs) -> nnx.Module:
    wide, narrow = nnx.Linear(384, 1536, rngs=rngs), nnx.Linear(1536, 384, rngs=rngs)
    return nnx.Sequential(wide, nnx.relu, narrow)


def _wide_feed_forward(rngs: nnx.Rngs) -> nnx.Module:
    """As many weights as eight experts."""
    wide, narrow = nnx.Linear(384, 12288, rngs=rngs), nnx.Linear(12288, 384, rngs=rngs)
    return nnx.Sequential(wide, nnx.relu, narrow)


def _experts(top_k: int):
    def make(rngs: nnx.Rngs) -> nnx.Module:
        return layers.MixtureOfExperts(384, 1536, experts=8, top_k=top_k, rngs=rngs)

    return make


CARDS = (
    Card(
        name="low_rank_linear",
        layers=("LowRankLinear", "FactorizedLinear"),
        pays="few-rank weights: inference bound by weights or MACs",
        x=_ROWS,
        baseline=_DENSE,
        sides=(
            Side("rank 56", lambda rngs: layers.LowRankLinear(768, 768, rank=56, rngs=rngs)),
            Side("rank 192", lambda rngs: layers.LowRankLinear(768, 768, rank=192, rngs=rngs)),
        ),
    ),
    Card(
        name="lora_linear",
        layers=("LoRALinear", "Frozen"),
        pays="fine-tuning: 2 % of the weights trained and kept per task, none of the cost left",
        x=_ROWS,
        baseline=_DENSE,
        sides=(Side("rank 8", _adapted), Side("rank 8, merged", _merged)),
    ),
    Card(
        name="block_diagonal_linear",
        layers=("BlockDiagonalLinear",),
        pays="1 / blocks of the weights and MACs, where something else mixes the blocks",
        x=_ROWS,
        baseline=_DENSE,
        sides=(
            Side(
                "8 blocks", lambda rngs: layers.BlockDiagonalLinear(768, 768, blocks=8, rngs=rngs)
            ),
        ),
    ),
    Card(
        name="monarch_linear",
        layers=("MonarchLinear",),
        pays="low-rank's cost with full rank: dense layers trained from the start",
        x=_ROWS,
        baseline=_DENSE,
        sides=(
            Side("24 blocks", lambda rngs: layers.MonarchLinear(768, 768, blocks=24, rngs=rngs)),
            Side(
                "8 blocks, rank 7",
                lambda rngs: layers.MonarchLinear(768, 768, blocks=8, rank=7, rngs=rngs),
            ),
        ),
    ),
    Card(
        name="kronecker_linear",
        layers=("KroneckerLinear",),
        pays="the fewest weights (0.2 %) with full rank: adapters, tiny models",
        x=_ROWS,
        baseline=_DENSE,
        sides=tuple(
            Side(
                label,
                lambda rngs, terms=terms: layers.KroneckerLinear(  # type: ignore[misc]
                    768, 768, left_features=(24, 24), terms=terms, rngs=rngs
                ),
            )
            for label, terms in (("one term", 1), ("four terms", 4))
        ),
    ),
    Card(
        name="hashed_linear",
        layers=("HashedLinear",),
        pays="download and storage alone: any number of weights, no time saved",
        x=_ROWS,
        baseline=_DENSE,
        sides=(
            Side(
                "buckets: a seventh",
                lambda rngs: layers.HashedLinear(768, 768, buckets=84_261, rngs=rngs),
            ),
        ),
    ),
    Card(
        name="sparse_linear",
        layers=("SparseLinear",),
        pays="trains 2:4 kernels for sparse tensor cores; dense speed everywhere XLA runs",
        x=_ROWS,
        baseline=_DENSE,
        sides=(Side("2:4", lambda rngs: layers.SparseLinear(768, 768, rngs=rngs)),),
    ),
    Card(
        name="mixture_of_experts",
        layers=("MixtureOfExperts",),
        pays="many weights at few MACs a token: quality per MAC where memory is cheap",
        x=(1, 196, 384),
        baseline=Side("MLP of 8 experts' weights", _wide_feed_forward),
        sides=(
            Side("8 experts, top 1", _experts(1)),
            Side("8 experts, top 2", _experts(2)),
            Side("MLP of one expert's weights", _feed_forward),
        ),
    ),
)
