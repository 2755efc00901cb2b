# SPDX-License-Identifier: Apache-2.0
"""What each primitive of JAX does to the entries of its operands' axes (`compress/ties.py`)."""

from collections.abc import Sequence
from typing import Any

import jax.extend.core as jex
import numpy as np

from efficient_layers.compress.shape_rules import SHAPES, Label, elementwise
from efficient_layers.compress.ties import ANY, FIXED, FROZEN, Entry, Part, Ties
from efficient_layers.measure.jaxpr import called, opened, scan_parts

# Index i of the result comes from index i of every operand that is no scalar.
_ELEMENTWISE = """
abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt
ceil clamp convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1
floor ge gt imag integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg
nextafter not or population_count pow real reduce_precision rem round rsqrt select_n shift_left
shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh
xor"""
ELEMENTWISE = frozenset(_ELEMENTWISE.split())


class Rules:
    """`run(jaxpr, labels)`: the labels of a program's results; ties are made on the way.

    `inputs`: first atom of a convolution's output channels -> atoms of the channels it reads.
    `averaged`: atoms over which something was summed without a kernel.
    `products`: of every dot and convolution, a number and (size, entry) of axes; its MACs are their
    product.
    """

    def __init__(self, ties: Ties) -> None:
        self.ties = ties
        self.inputs: dict[int, np.ndarray] = {}
        self.averaged: list[np.ndarray] = []
        self.products: list[tuple[int, list[tuple[int, Entry]]]] = []
        self.not_understood: list[str] = []
        self._scope = ""

    def run(self, jaxpr: Any, labels: Sequence[Label]) -> list[Label]:
        jaxpr = opened(jaxpr)
        known: dict[Any, Label] = dict(zip(jaxpr.invars, labels, strict=True))
        for var in jaxpr.constvars:  # an array in somebody's code: its sizes are fixed
            known[var] = [FIXED if size > 1 else ANY for size in var.aval.shape]

        def label(atom: Any) -> Label:
            if isinstance(atom, jex.Literal):
                return [FIXED if size > 1 else ANY for size in np.shape(atom.val)]
            return known[atom]

        for eqn in jaxpr.eqns:
            results = self._equation(eqn, [label(atom) for atom in eqn.invars])
            for var, result in zip(eqn.outvars, results, strict=True):
                sizes = var.aval.shape
                known[var] = [
                    ANY if n == 1 else self.ties.settled(e)
                    for n, e in zip(sizes, result, strict=True)
                ]
        return [label(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, labels: list[Label]) -> list[Label]:
        name = eqn.primitive.name
        if name in ELEMENTWISE:
            return [elementwise(self.ties, labels)] * len(eqn.outvars)
        if name in SHAPES:
            return SHAPES[name](self.ties, eqn, labels)
        rule = getattr(self, f"_{name}", None)
        if name.startswith(("cum", "reduce_window")):
            rule = self._cumulative if name.startswith("cum") else self._reduce_window
        elif name.startswith("reduce_") or name in ("argmax", "argmin"):
            rule = self._reduce
        if name == "reduce":  # its program is of two numbers
            return self._unknown(eqn, labels)
        if rule is not None:
            results = rule(eqn, labels)
            if results is not None:
                return results
        inner = called(eqn)
        if inner is None:
            return self._unknown(eqn, labels)
        outside, self._scope = self._scope, self._here(eqn)
        results = self.run(inner, labels)
        self._scope = outside
        return results

    def _here(self, eqn: Any) -> str:
        """The named scopes around an equation, those of the programs that call it included."""
        return "/".join(part for part in (self._scope, str(eqn.source_info.name_stack)) if part)

    def _unknown(self, eqn: Any, labels: list[Label]) -> list[Label]:
        """Freezes everything; named, unless nothing could have been removed anyway."""
        entries = [self.ties.settled(entry) for label in labels for entry in label]
        if any(isinstance(entry, np.ndarray | Part) for entry in entries):
            line = f"{eqn.primitive.name} in {self._here(eqn) or 'the model'}"
            if line not in self.not_understood:
                self.not_understood.append(line)
        for entry in entries:
            self.ties.freeze(entry)
        return [[FIXED] * len(var.aval.shape) for var in eqn.outvars]

    # Sums.

    def _reduce(self, eqn: Any, labels: list[Label]) -> list[Label] | None:
        axes = eqn.params.get("axes")
        if axes is None or len(labels) != 1:
            return None
        for axis in axes:
            entry = self.ties.settled(labels[0][axis])
            if isinstance(entry, Part) or eqn.primitive.name in ("argmax", "argmin"):
                self.ties.fixed(entry)
            elif isinstance(entry, np.ndarray):
                self.averaged.append(entry)
        kept = [entry for axis, entry in enumerate(labels[0]) if axis not in axes]
        return [kept] * len(eqn.outvars)

    def _cumulative(self, eqn: Any, labels: list[Label]) -> list[Label]:
        own = eqn.params["axis"]
        return [[self.ties.fixed(e) if a == own else e for a, e in enumerate(labels[0])]]

    def _sort(self, eqn: Any, labels: list[Label]) -> list[Label]:
        own, tied = eqn.params["dimension"], elementwise(self.ties, labels)
        return [[self.ties.fixed(e) if a == own else e for a, e in enumerate(tied)]] * len(labels)

    def _reduce_window(self, eqn: Any, labels: list[Label]) -> list[Label] | None:
        if any(label for label in labels[1:]):
            return None
        sizes = zip(labels[0], eqn.params["window_dimensions"], strict=True)
        return [[e if n == 1 else self.ties.fixed(e) for e, n in sizes]]

    def _dot_general(self, eqn: Any, labels: list[Label]) -> list[Label]:
        (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
        lhs, rhs = labels
        for label, axes in ((lhs, left_batch), (rhs, right_batch)):
            for axis in axes:  # a product a head: heads are what can be removed
                entry = self.ties.settled(label[axis])
                if isinstance(entry, Part):
                    entry.split.choose(entry.axis)
        pairs = [*zip(left_batch, right_batch, strict=True), *zip(left, right, strict=True)]
        tied = [self.ties.tie(lhs[a], rhs[b]) for a, b in pairs]
        result = [
            *tied[: len(left_batch)],
            *(e for a, e in enumerate(lhs) if a not in (*left, *left_batch)),
            *(e for a, e in enumerate(rhs) if a not in (*right, *right_batch)),
        ]
        summed = [eqn.invars[0].aval.shape[axis] for axis in left]
        self._count([*eqn.outvars[0].aval.shape, *summed], [*result, *tied[len(left_batch) :]])
        return [result]

    def _count(self, sizes: Sequence[int], entries: Sequence[Entry]) -> None:
        self.products.append((1, list(zip(sizes, entries, strict=True))))

    def _conv_general_dilated(self, eqn: Any, labels: list[Label]) -> list[Label] | None:
        numbers, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
        if eqn.params["batch_group_count"] != 1:
            return None
        lhs, rhs = labels
        for axis in numbers.lhs_spec[2:]:
            self.ties.fixed(lhs[axis])
        for axis in numbers.rhs_spec[2:]:
            self.ties.fixed(rhs[axis])
        channels = self.ties.line(lhs[numbers.lhs_spec[1]])
        made, read = (self.ties.line(rhs[axis]) for axis in numbers.rhs_spec[:2])
        outs, ins = (eqn.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[:2])
        # Asked of every convolution: in a smaller model one group may be left.
        whole = self.ties.decide(int(groups >= ins))
        if groups > 1:
            lines = [
                entry if isinstance(entry, np.ndarray) else np.full(size, FROZEN)
                for entry, size in ((channels, groups * ins), (made, outs))
            ]
            inputs, outputs = (line.reshape(groups, -1) for line in lines)
            self._tie_groups(inputs, outputs, read, bool(whole))
            made = lines[1]
        else:
            self.ties.tie(channels, read)
        if isinstance(channels, np.ndarray) and isinstance(made, np.ndarray):
            self.inputs[int(made[0])] = channels
        result: Label = [FIXED] * len(lhs)
        result[numbers.out_spec[0]] = lhs[numbers.lhs_spec[0]]
        result[numbers.out_spec[1]] = made
        window = [eqn.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[1:]]
        entries = [*result, read, *[FIXED] * (len(window) - 1)]
        self._count([*eqn.outvars[0].aval.shape, *window], entries)
        return [result]

    def _tie_groups(
        self, inputs: np.ndarray, outputs: np.ndarray, read: Entry, whole: bool
    ) -> None:
        """Whole groups are removed where there are more groups than channels in one (depthwise),
        else a channel of every group at once: all groups have the same size.
        """
        if whole:
            self.ties.unite(inputs, inputs[:, :1])
            self.ties.unite(outputs, inputs[:, :1])
            self.ties.fixed(read)
        else:
            self.ties.unite(inputs, inputs[:1])
            self.ties.unite(outputs, outputs[:1])
            self.ties.tie(inputs[0], read)

    # Loops and branches.

    def _scan(self, eqn: Any, labels: list[Label]) -> list[Label]:
        consts, carries = scan_parts(eqn)
        xs = [label[1:] for label in labels[consts + carries :]]
        for label in labels[consts + carries :]:
            self.ties.fixed(label[0])
        carry = labels[consts : consts + carries]
        start = len(self.products)
        carry, ys = self._loop(eqn.params["jaxpr"], labels[:consts], carry, xs)
        times = eqn.params["length"]
        self.products[start:] = [(times * n, free) for n, free in self.products[start:]]
        return [*carry, *([FIXED, *label] for label in ys)]

    def _while(self, eqn: Any, labels: list[Label]) -> list[Label]:
        first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        body, carry = labels[first : first + second], labels[first + second :]
        carry, _ = self._loop(eqn.params["body_jaxpr"], body, carry, [])
        self.run(eqn.params["cond_jaxpr"], [*labels[:first], *carry])
        return carry

    def _loop(
        self, jaxpr: Any, consts: list[Label], carry: list[Label], xs: list[Label]
    ) -> tuple[list[Label], list[Label]]:
        """Runs the body until what it hands on is tied to what it got (zeros become channels)."""
        start = len(self.products)
        while True:
            del self.products[start:]
            results = self.run(jaxpr, [*consts, *carry, *xs])
            after = [
                [self.ties.tie(a, b) for a, b in zip(*pair, strict=True)]
                for pair in zip(carry, results[: len(carry)], strict=True)
            ]
            if [[_kind(e) for e in m] for m in after] == [[_kind(e) for e in m] for m in carry]:
                return after, results[len(carry) :]
            carry = after

    def _cond(self, eqn: Any, labels: list[Label]) -> list[Label]:
        results = [self.run(branch, labels[1:]) for branch in eqn.params["branches"]]
        return [elementwise(self.ties, list(cases)) for cases in zip(*results, strict=True)]


def _kind(entry: Entry) -> str:
    return "fixed" if entry is FIXED else "any" if entry is ANY else "atoms"
