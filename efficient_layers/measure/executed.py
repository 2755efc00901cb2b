# SPDX-License-Identifier: Apache-2.0
"""What XLA really runs for a model: read from the optimised program, not from what was asked for.

"int8" may be said of a model when `executed(model, x).int8_dots` is not zero.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax
from flax import nnx

from efficient_layers.measure.memory import compiled_memory
from efficient_layers.measure.program import Program, compiled_view

_NAMES = {"s4": "int4", "u4": "uint4", "s8": "int8", "u8": "uint8", "s32": "int32"}
_DOTS, _CONVOLUTIONS = (
    re.compile(r"gemm|matmul|dot|mlir\.matmul"),
    re.compile(r"conv", re.IGNORECASE),
)
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.+)$")
_OPCODE = re.compile(r"^\s*(?P<opcode>[a-z][\w\-]*)\((?P<operands>.*)$")
_ELEMENT = re.compile(r"^\(?\s*(\w+)\[")
_OPERAND = re.compile(r"(?:(?P<type>\w+)\[[^\]]*\]\S* )?%?(?P<name>[\w.\-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]+)"')


@dataclass(frozen=True)
class Executed:
    """Counts over the text of the optimised HLO; a loop's body counts once.

    `dots` and `convolutions` are by operand type ("int8", "bf16", "f32"; two different ones as
    "bf16*int8") and include those in fusions and in library calls (oneDNN, cuBLAS, cuDNN), which
    `custom_calls` names. `bytes_accessed` and `flops` are XLA's own estimate (a cross-check only:
    it adds elementwise work and counts a scan's body once).
    """

    platform: str
    dots: dict[str, int]
    convolutions: dict[str, int]
    custom_calls: dict[str, int]
    fusions: int
    instructions: int
    bytes_accessed: float | None
    flops: float | None
    memory: dict[str, int | None]

    @property
    def int8_dots(self) -> int:
        """Dots whose operands are both 8-bit integers."""
        return sum(self.dots.get(name, 0) for name in ("int8", "uint8", "int8*uint8"))

    @property
    def float_dots(self) -> int:
        """Dots with only floating-point operands."""
        return sum(n for name, n in self.dots.items() if "int" not in name and name != "pred")

    def to_json(self) -> dict[str, Any]:
        """Its fields and the two sums as a JSON-able dict."""
        return {**asdict(self), "int8_dots": self.int8_dots, "float_dots": self.float_dots}


class _Instruction(NamedTuple):
    name: str
    element: str
    opcode: str
    operands: str


def executed(model: nnx.Module | Callable | Program, x: Any = None) -> Executed:
    """Compiles the forward pass of `model` on `x` (eval mode, lowering in force) and reads it.

    Does not run it: abstract models and `jax.ShapeDtypeStruct` inputs will do, and so will what
    `compiled_view` made.
    """
    return of_compiled(compiled_view(model, x).compiled)


def of_compiled(compiled: jax.stages.Compiled) -> Executed:
    """Reads any compiled program, such as `jax.jit(step).lower(...).compile()`."""
    counts = count_hlo(compiled.as_text() or "")
    analysis = compiled.cost_analysis() or {}
    return Executed(
        platform=jax.default_backend(),
        **counts,
        bytes_accessed=analysis.get("bytes accessed"),
        flops=analysis.get("flops"),
        memory=compiled_memory(compiled),
    )


def count_hlo(text: str) -> dict[str, Any]:
    """Counts in HLO text: dots and convolutions by type, custom calls by target, fusions."""
    instructions = list(_instructions(text))
    elements = {instruction.name: instruction.element for instruction in instructions}
    dots: Counter[str] = Counter()
    convolutions: Counter[str] = Counter()
    targets: Counter[str] = Counter()
    for instruction in instructions:
        kind = instruction.opcode
        if kind == "custom-call":
            target = _TARGET.search(instruction.operands)
            name = target.group(1) if target else "unnamed"
            targets[name] += 1
            kind = _library(name)
        if kind == "dot" or kind == "ragged-dot":
            dots[_types(instruction, elements)] += 1
        elif kind == "convolution":
            convolutions[_types(instruction, elements)] += 1
    return {
        "dots": dict(dots),
        "convolutions": dict(convolutions),
        "custom_calls": dict(targets),
        "fusions": sum(instruction.opcode == "fusion" for instruction in instructions),
        "instructions": len(instructions),
    }


def _instructions(text: str) -> Iterator[_Instruction]:
    for line in text.splitlines():
        found = _INSTRUCTION.match(line)
        if not found:
            continue
        result, after = _split_type(found["rest"])
        call, element = _OPCODE.match(after), _ELEMENT.match(result)
        if call:
            name = element.group(1) if element else ""
            yield _Instruction(found["name"], name, call["opcode"], call["operands"])


def _split_type(rest: str) -> tuple[str, str]:
    """`f32[2]{0} add(...)` or `(f32[2]{0}, s32[]) while(...)` -> the type, what follows."""
    if not rest.startswith("("):
        result, _, after = rest.partition(" ")
        return result, after
    depth = 0
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return rest[: place + 1], rest[place + 1 :]
    return rest, ""


def _library(target: str) -> str:
    """What a library call does, from its name (`__onednn$matmul`, `__cudnn$convForward`)."""
    if _CONVOLUTIONS.search(target):
        return "convolution"
    return "dot" if _DOTS.search(target) else "other"


def _types(instruction: _Instruction, elements: dict[str, str]) -> str:
    """The element type of the two operands; both, in order of name, where they differ."""
    operands = _OPERAND.finditer(instruction.operands.partition(")")[0])
    named = [o["type"] or elements.get(o["name"], "") for o in operands]
    types = {_NAMES.get(t, t) for t in [t for t in named if t][:2]}
    return "*".join(sorted(types))
