# SPDX-License-Identifier: Apache-2.0
"""ViT and DeiT in timm and in torchvision; theirs fuse query, key and value."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_weights import LINEAR, Pair, TorchNames

QUERY_KEY_VALUE = ("query", "key", "value")


def timm_blocks(ours: str, theirs: str, count: int) -> Iterator[Pair]:
    """Pre-norm transformer blocks, as ViT and MobileViT have them in timm."""
    for index in range(count):
        a, b = f"{ours}/{index}", f"{theirs}.{index}"
        yield Pair(f"{a}/attention_norm", f"{b}.norm1")
        yield Pair(tuple(f"{a}/attention/{name}" for name in QUERY_KEY_VALUE), f"{b}.attn.qkv")
        yield Pair(f"{a}/attention/out", f"{b}.attn.proj")
        yield Pair(f"{a}/mlp_norm", f"{b}.norm2")
        yield Pair(f"{a}/expand", f"{b}.mlp.fc1")
        yield Pair(f"{a}/project", f"{b}.mlp.fc2")


def _timm(model: Any) -> Iterator[Pair]:
    yield Pair("class_token", "cls_token")
    if model.config.distilled:
        yield Pair("distillation_token", "dist_token")
    yield Pair("positions", "pos_embed")
    yield Pair("stem", "patch_embed.proj")
    yield from timm_blocks("blocks", "blocks", model.config.depth)
    yield Pair("norm", "norm")
    if model.classifier is not None:
        yield Pair("classifier", "head")
    if model.distillation_classifier is not None:
        yield Pair("distillation_classifier", "head_dist")


def _torchvision(model: Any) -> Iterator[Pair]:
    yield Pair("class_token", "class_token")
    yield Pair("positions", "encoder.pos_embedding")
    yield Pair("stem", "conv_proj")
    for index in range(model.config.depth):
        ours, theirs = f"blocks/{index}", f"encoder.layers.encoder_layer_{index}"
        fused = [f"{ours}/attention/{name}" for name in QUERY_KEY_VALUE]
        kernels, biases = (tuple(f"{m}/{leaf}" for m in fused) for leaf in ("kernel", "bias"))
        yield Pair(f"{ours}/attention_norm", f"{theirs}.ln_1")
        yield Pair(kernels, f"{theirs}.self_attention.in_proj_weight", LINEAR)
        yield Pair(biases, f"{theirs}.self_attention.in_proj_bias")
        yield Pair(f"{ours}/attention/out", f"{theirs}.self_attention.out_proj")
        yield Pair(f"{ours}/mlp_norm", f"{theirs}.ln_2")
        yield Pair(f"{ours}/expand", f"{theirs}.mlp.0")
        yield Pair(f"{ours}/project", f"{theirs}.mlp.3")
    yield Pair("norm", "encoder.ln")
    if model.classifier is not None:
        yield Pair("classifier", "heads.head")


TORCH = {
    "timm": TorchNames(_timm, head=r"head(_dist)?\..*"),
    "torchvision": TorchNames(_torchvision, head=r"heads\.head\..*"),
}
