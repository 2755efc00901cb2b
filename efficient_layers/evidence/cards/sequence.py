# SPDX-License-Identifier: Apache-2.0
"""Cards of layers that go along a sequence without n x n weights: attention's variants, recurrence.

Attention stands beside softmax attention with 8 heads of 64 at 1,024 positions; where that length
pays and where not is the table of docs/benchmarks/attention_lengths.
"""

from flax import nnx

from efficient_layers import layers
from efficient_layers.evidence.cards.card import Card, Side

_TOKENS = (1, 1024, 512)


def _softmax_attention(rngs: nnx.Rngs) -> nnx.Module:
    return layers.MultiHeadAttention(512, 8, rngs=rngs)


_SOFTMAX = Side("softmax attention", _softmax_attention)
_STREAMS = (8, 128, 256)
_LSTM = Side("LSTM 256", lambda rngs: layers.LSTM(256, 256, rngs=rngs))


CARDS = (
    Card(
        name="linear_attention",
        layers=("LinearAttention",),
        pays="long sequences; decoding at a constant cost a step",
        x=_TOKENS,
        baseline=_SOFTMAX,
        sides=(
            Side("all positions", lambda rngs: layers.LinearAttention(512, 8, rngs=rngs)),
            Side("causal", lambda rngs: layers.LinearAttention(512, 8, causal=True, rngs=rngs)),
        ),
    ),
    Card(
        name="performer",
        layers=("Performer",),
        pays="long sequences with weights near softmax's, from weights trained with softmax",
        x=_TOKENS,
        baseline=_SOFTMAX,
        sides=(
            Side("272 features", lambda rngs: layers.Performer(512, 8, rngs=rngs)),
            Side(
                "64 features, causal",
                lambda rngs: layers.Performer(512, 8, num_features=64, causal=True, rngs=rngs),
            ),
        ),
    ),
    Card(
        name="linformer",
        layers=("Linformer",),
        pays="encoders of one fixed length: n x rank weights, plain products",
        x=_TOKENS,
        baseline=_SOFTMAX,
        sides=(
            Side(
                "rank 128",
                lambda rngs: layers.Linformer(512, 8, length=1024, rank=128, rngs=rngs),
            ),
        ),
    ),
    Card(
        name="nystrom_attention",
        layers=("NystromAttention",),
        pays="encoders with long inputs of any length, from weights trained with softmax",
        x=_TOKENS,
        baseline=_SOFTMAX,
        sides=(
            Side("64 landmarks", lambda rngs: layers.NystromAttention(512, 8, rngs=rngs)),
            Side(
                "64 landmarks, skip of 33",
                lambda rngs: layers.NystromAttention(512, 8, kernel_size=33, rngs=rngs),
            ),
        ),
    ),
    Card(
        name="gated_linear_attention",
        layers=("GatedLinearAttention",),
        pays="causal language models: forgets by feature, decodes at a constant cost a step",
        x=_TOKENS,
        baseline=_SOFTMAX,
        sides=(Side("chunks of 64", lambda rngs: layers.GatedLinearAttention(512, 8, rngs=rngs)),),
    ),
    Card(
        name="delta_net",
        layers=("DeltaNet",),
        pays="causal models that must recall: overwrites by key, decodes at a constant cost a step",
        x=_TOKENS,
        baseline=_SOFTMAX,
        sides=(Side("chunks of 64", lambda rngs: layers.DeltaNet(512, 8, rngs=rngs)),),
    ),
    Card(
        name="recurrent",
        layers=("LSTM", "GRU"),
        pays="streams and short states: exact torch weights, the baseline of the other two",
        x=_STREAMS,
        baseline=_LSTM,
        sides=(Side("GRU 256", lambda rngs: layers.GRU(256, 256, rngs=rngs)),),
    ),
    Card(
        name="min_gru",
        layers=("MinGRU",),
        pays="gated recurrence without a product in the loop: a few times an LSTM's speed",
        x=_STREAMS,
        baseline=_LSTM,
        sides=(Side("MinGRU 256", lambda rngs: layers.MinGRU(256, 256, rngs=rngs)),),
    ),
    Card(
        name="diagonal_ssm",
        layers=("DiagonalSSM",),
        pays="long memory at a linear layer's cost, in parallel along the sequence",
        x=_STREAMS,
        baseline=_LSTM,
        sides=(
            Side("128 complex states", lambda rngs: layers.DiagonalSSM(256, 128, rngs=rngs)),
            Side("256 complex states", lambda rngs: layers.DiagonalSSM(256, 256, rngs=rngs)),
        ),
    ),
)
