# SPDX-License-Identifier: Apache-2.0
"""`config.init_from`: a run begins with the weights of another workdir, or of a file.

From a workdir come what it would ship (`el.load`: parameters and running statistics) by path; from
a file (safetensors, .npz) torch weights by the names of timm, torchvision or transformers. Only a
head, whose shapes follow the number of classes, may differ: it keeps its fresh values. Modules at
the top of the other model that this one does not have (a head for another task) are passed by.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from efficient_layers import compress, models
from efficient_layers.models.weight_file import read_weights
from efficient_layers.train.load import load
from efficient_layers.train.state import Arrays, merge, split
from efficient_layers.train.workdir import Workdir


def init_from(
    model: nnx.Module, path: str | Path, description: dict[str, Any]
) -> tuple[nnx.Module, dict[str, Any], list[str]]:
    """`model` with the weights at `path`, its description, lines on what was and was not loaded.

    A workdir that holds a compressed model hands on its structure, too: its edits, and whether
    zeros of its weights are to stay.

    Args:
      description: how `model` was made, `{"create": {"name": ..., "fields": ...}, "edits": []}`.

    Raises:
      ValueError: nothing is there, or the weights are another model's; all differences are listed.
      WorkdirError, CheckpointError: the workdir or its checkpoint is incomplete or damaged.
    """
    path = Path(path).expanduser()
    create = description["create"]
    if path.is_dir():
        there = Workdir.open(path).model
        handed = {key: there[key] for key in ("edits", "keep_zeros") if there.get(key)}
        compressed = compress.rebuild(model, handed.get("edits", []))
        model, lines = _from_workdir(compressed, path, create)
        return model, description | handed, lines
    if not path.is_file():
        raise ValueError(
            f"config.init_from={str(path)!r} is not there. Expected a workdir of launch.train, or "
            "a .safetensors or .npz file of weights."
        )
    skipped = models.load_torch(model, read_weights(path), any_head=True)
    return (
        model,
        description,
        [f"init_from {path}: loaded, but for {len(skipped)} entries", *skipped],
    )


def _from_workdir(
    model: nnx.Module, path: Path, create: dict[str, Any]
) -> tuple[nnx.Module, list[str]]:
    there = _arrays(load(path))
    graphdef, params, rest = split(model)
    here = {**params, **rest}
    lines = _differences(there, here)
    head = _head(create) if lines else set()
    children = {name.split("/")[0] for name in here}
    passed = head | {name for name in there if name.split("/")[0] not in children}
    wrong = [line for name, line in lines.items() if name not in passed]
    wrong += [
        f"{name}: made by compression, and of another shape there"
        for name in lines.keys() & head
        if isinstance(here.get(name), jax.ShapeDtypeStruct)
    ]
    same = here.keys() - lines.keys()
    taken = {name: jnp.asarray(there[name], here[name].dtype) for name in same}
    if wrong or not taken:
        raise ValueError(
            f"config.init_from={str(path)!r} holds another model than {create['name']} with these "
            f"fields: {len(wrong)} of {len(here)} arrays differ outside of the classifier.\n  "
            + "\n  ".join(wrong[:40] + (["..."] if len(wrong) > 40 else []))
            + "\nSet config.model as in that workdir's config.json."
        )
    filled = merge(graphdef, {**here, **taken})
    title = f"init_from {path}: loaded {len(taken)} of {len(here)} arrays"
    return filled, [title, *lines.values()]


def _arrays(model: nnx.Module) -> Arrays:
    _, params, rest = split(model)
    return {**params, **rest}


def _differences(there: Arrays, here: Arrays) -> dict[str, str]:
    """Path -> a line on what was not loaded, and why."""
    lines = {}
    for name in sorted(there.keys() | here.keys()):
        if name not in there:
            lines[name] = f"{name}: not loaded, only here"
        elif name not in here:
            lines[name] = f"{name}: not loaded, only there"
        elif there[name].shape != here[name].shape:
            shapes = f"shape there {there[name].shape}, here {here[name].shape}"
            lines[name] = f"{name}: not loaded, {shapes}"
    return lines


def _head(create: dict[str, Any]) -> set[str]:
    """The paths whose shape follows `num_classes`, found by asking for one class more."""
    fields = create["fields"]
    if "num_classes" not in fields:
        return set()

    def shapes(more: int) -> dict[str, tuple[int, ...]]:
        wanted = {**fields, "num_classes": fields["num_classes"] + more}
        model = nnx.eval_shape(lambda: models.create(create["name"], **wanted, rngs=nnx.Rngs(0)))
        return {name: array.shape for name, array in _arrays(model).items()}

    one, other = shapes(0), shapes(1)
    return {name for name in one if one[name] != other.get(name)}
