# SPDX-License-Identifier: Apache-2.0
"""What each primitive of JAX does to the entries of its operands' axes (`compress/ties.py`)."""

from collections.abc import Sequence
from typing import Any

import jax.extend.core as jex
import numpy as np

from efficient_layers.compress.ties import ANY, FIXED, FROZEN, Entry, Part, Ties, reshape
from efficient_layers.measure.jaxpr import called, opened, scan_parts

Label = list[Entry]

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
    `loose`: first atom of the input axis of kernels whose groups are removed whole.
    """

    def __init__(self, ties: Ties) -> None:
        self.ties = ties
        self.inputs: dict[int, np.ndarray] = {}
        self.averaged: list[np.ndarray] = []
        self.loose: set[int] = set()
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
            return [self._elementwise(labels)] * len(eqn.outvars)
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

    def _elementwise(self, labels: list[Label]) -> Label:
        arrays = [label for label in labels if label]
        result = arrays[0] if arrays else []
        for label in arrays[1:]:
            result = [self.ties.tie(a, b) for a, b in zip(result, label, strict=True)]
        return result

    def _freeze(self, entry: Entry) -> Entry:
        self.ties.freeze(entry)
        return FIXED

    # Shapes.

    def _optimization_barrier(self, eqn: Any, labels: list[Label]) -> list[Label]:
        return labels

    def _broadcast_in_dim(self, eqn: Any, labels: list[Label]) -> list[Label]:
        result: Label = [ANY] * len(eqn.params["shape"])
        for entry, axis, size in zip(
            labels[0], eqn.params["broadcast_dimensions"], eqn.invars[0].aval.shape, strict=True
        ):
            result[axis] = ANY if size == 1 else entry
        return [result]

    def _reshape(self, eqn: Any, labels: list[Label]) -> list[Label]:
        old, new = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
        return [reshape(self.ties, labels[0], old, new)]

    def _squeeze(self, eqn: Any, labels: list[Label]) -> list[Label]:
        gone = eqn.params["dimensions"]
        return [[entry for axis, entry in enumerate(labels[0]) if axis not in gone]]

    def _expand_dims(self, eqn: Any, labels: list[Label]) -> list[Label]:
        result = list(labels[0])
        for axis in sorted(eqn.params["dimensions"]):
            result.insert(axis, ANY)
        return [result]

    def _transpose(self, eqn: Any, labels: list[Label]) -> list[Label]:
        return [[labels[0][axis] for axis in eqn.params["permutation"]]]

    def _iota(self, eqn: Any, labels: list[Label]) -> list[Label]:
        own = eqn.params["dimension"]
        return [[FIXED if axis == own else ANY for axis in range(len(eqn.params["shape"]))]]

    def _rev(self, eqn: Any, labels: list[Label]) -> list[Label]:
        turned = eqn.params["dimensions"]
        return [[self._freeze(e) if a in turned else e for a, e in enumerate(labels[0])]]

    def _concatenate(self, eqn: Any, labels: list[Label]) -> list[Label]:
        axis, sizes = eqn.params["dimension"], [v.aval.shape for v in eqn.invars]
        result = self._elementwise([[e for a, e in enumerate(m) if a != axis] for m in labels])
        parts = [self.ties.settled(label[axis]) for label in labels]
        for part in parts:
            if isinstance(part, Part):
                part.split.choose(part.split.candidates[0])
        parts = [self.ties.settled(part) for part in parts]
        whole: Entry = FIXED
        if any(isinstance(part, np.ndarray) for part in parts):
            lines = [
                part if isinstance(part, np.ndarray) else np.full(shape[axis], FROZEN)
                for part, shape in zip(parts, sizes, strict=True)
            ]
            whole = np.concatenate(lines)
        return [[*result[:axis], whole, *result[axis:]]]

    def _stack(self, eqn: Any, labels: list[Label]) -> list[Label]:
        result = self._elementwise(labels)
        axis = eqn.params["axis"]
        return [[*result[:axis], FIXED, *result[axis:]]]

    def _line(self, entry: Entry) -> Entry:
        """A part as an array or `FIXED`."""
        entry = self.ties.settled(entry)
        if isinstance(entry, Part):
            entry.split.choose(entry.split.candidates[0])
        return self.ties.settled(entry)

    def _slice(self, eqn: Any, labels: list[Label]) -> list[Label]:
        starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
        steps = eqn.params["strides"] or [1] * len(starts)
        result = []
        for entry, size, *cut in zip(
            labels[0], eqn.invars[0].aval.shape, starts, limits, steps, strict=True
        ):
            if cut != [0, size, 1]:
                entry = self.ties.settled(entry)
                if isinstance(entry, Part):  # a fixed number of these: queries, keys, values
                    self.ties.freeze(entry)
                entry = self.ties.settled(entry)
                entry = entry[slice(*cut)] if isinstance(entry, np.ndarray) else entry
            result.append(entry)
        return [result]

    def _split(self, eqn: Any, labels: list[Label]) -> list[Label]:
        axis, sizes = eqn.params["axis"], eqn.params["sizes"]
        entry = self._line(labels[0][axis])
        pieces = [entry] * len(sizes)
        if isinstance(entry, np.ndarray):
            pieces = np.split(entry, np.cumsum(sizes)[:-1])
        return [[*labels[0][:axis], piece, *labels[0][axis + 1 :]] for piece in pieces]

    def _pad(self, eqn: Any, labels: list[Label]) -> list[Label]:
        """What is added has a size that stands in somebody's code."""
        result = []
        for entry, (low, high, inner) in zip(labels[0], eqn.params["padding_config"], strict=True):
            if (low, high, inner) != (0, 0, 0):
                entry = self._line(entry)
                if min(low, high) < 0 or inner or not isinstance(entry, np.ndarray):
                    entry = self._freeze(entry)
                else:
                    entry = np.pad(entry, (low, high), constant_values=FROZEN)
            result.append(entry)
        return [result]

    def _dynamic_slice(self, eqn: Any, labels: list[Label]) -> list[Label]:
        sizes, whole = eqn.params["slice_sizes"], eqn.invars[0].aval.shape
        return [
            [
                e if n == w else self._freeze(e)
                for e, n, w in zip(labels[0], sizes, whole, strict=True)
            ]
        ]

    def _gather(self, eqn: Any, labels: list[Label]) -> list[Label]:
        """Rows of a table: the axes taken whole pass, the others stay."""
        numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
        whole = eqn.invars[0].aval.shape
        batched = tuple(getattr(numbers, "operand_batching_dims", ()))
        window = []
        for axis, entry in enumerate(labels[0]):
            if sizes[axis] != whole[axis] or axis in numbers.collapsed_slice_dims + batched:
                entry = self._freeze(entry)
            if axis not in numbers.collapsed_slice_dims + batched:
                window.append(entry)
        for entry in labels[1]:
            self._freeze(entry)
        result: Label = [FIXED] * len(eqn.outvars[0].aval.shape)
        for axis, entry in zip(numbers.offset_dims, window, strict=True):
            result[axis] = entry
        return [result]

    # Sums.

    def _reduce(self, eqn: Any, labels: list[Label]) -> list[Label] | None:
        axes = eqn.params.get("axes")
        if axes is None or len(labels) != 1:
            return None
        for axis in axes:
            entry = self.ties.settled(labels[0][axis])
            if isinstance(entry, Part) or eqn.primitive.name in ("argmax", "argmin"):
                self._freeze(entry)
            elif isinstance(entry, np.ndarray):
                self.averaged.append(entry)
        kept = [entry for axis, entry in enumerate(labels[0]) if axis not in axes]
        return [kept] * len(eqn.outvars)

    def _cumulative(self, eqn: Any, labels: list[Label]) -> list[Label]:
        own = eqn.params["axis"]
        return [[self._freeze(e) if a == own else e for a, e in enumerate(labels[0])]]

    def _sort(self, eqn: Any, labels: list[Label]) -> list[Label]:
        own, tied = eqn.params["dimension"], self._elementwise(labels)
        return [[self._freeze(e) if a == own else e for a, e in enumerate(tied)]] * len(labels)

    def _reduce_window(self, eqn: Any, labels: list[Label]) -> list[Label] | None:
        if any(label for label in labels[1:]):
            return None
        sizes = zip(labels[0], eqn.params["window_dimensions"], strict=True)
        return [[e if n == 1 else self._freeze(e) for e, n in sizes]]

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
        return [
            [
                *tied[: len(left_batch)],
                *(e for a, e in enumerate(lhs) if a not in (*left, *left_batch)),
                *(e for a, e in enumerate(rhs) if a not in (*right, *right_batch)),
            ]
        ]

    def _conv_general_dilated(self, eqn: Any, labels: list[Label]) -> list[Label] | None:
        numbers, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
        if eqn.params["batch_group_count"] != 1:
            return None
        lhs, rhs = labels
        for axis in numbers.lhs_spec[2:]:
            self._freeze(lhs[axis])
        for axis in numbers.rhs_spec[2:]:
            self._freeze(rhs[axis])
        channels = self._line(lhs[numbers.lhs_spec[1]])
        made, read = (self._line(rhs[axis]) for axis in numbers.rhs_spec[:2])
        outs, ins = (eqn.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[:2])
        # Asked of every convolution: in a smaller model one group may be left.
        whole = self.ties.decide(int(groups >= ins))
        if groups > 1:
            lines = [
                entry if isinstance(entry, np.ndarray) else np.full(size, FROZEN)
                for entry, size in ((channels, groups * ins), (made, outs))
            ]
            self._tie_groups(*(line.reshape(groups, -1) for line in lines), read, bool(whole))
            made = lines[1]
        else:
            self.ties.tie(channels, read)
        if isinstance(channels, np.ndarray) and isinstance(made, np.ndarray):
            self.inputs[int(made[0])] = channels
        result: Label = [FIXED] * len(lhs)
        result[numbers.out_spec[0]] = lhs[numbers.lhs_spec[0]]
        result[numbers.out_spec[1]] = made
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
            if isinstance(read, np.ndarray):
                self.loose.add(int(read[0]))
            self._freeze(read)
        else:
            self.ties.unite(inputs, inputs[:1])
            self.ties.unite(outputs, outputs[:1])
            self.ties.tie(inputs[0], read)

    # Loops and branches.

    def _scan(self, eqn: Any, labels: list[Label]) -> list[Label]:
        consts, carries = scan_parts(eqn)
        xs = [label[1:] for label in labels[consts + carries :]]
        for label in labels[consts + carries :]:
            self._freeze(label[0])
        carry = labels[consts : consts + carries]
        carry, ys = self._loop(eqn.params["jaxpr"], labels[:consts], carry, xs)
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
        while True:
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
        return [self._elementwise(list(cases)) for cases in zip(*results, strict=True)]


def _kind(entry: Entry) -> str:
    return "fixed" if entry is FIXED else "any" if entry is ANY else "atoms"
