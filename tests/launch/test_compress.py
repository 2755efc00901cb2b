# SPDX-License-Identifier: Apache-2.0
"""launch.compress and launch.measure_recipes as a user meets them; every recipe of configs/."""

import numpy as np
import pytest

from efficient_layers import train
from launch import read_config
from tests.train.runs import ROOT, run, tiny_config

KINDS = {
    "int8": ("static", "dynamic", "weights", "int4"),
    "qat": ("int4", "int8", "lsq4", "noise4"),
    "prune": ("one_shot", "gradual"),
    "remove": ("",),
    "chain": ("",),
    "cluster": ("",),
    "deep_compression": ("",),
    "share": ("1", "2"),
}


@pytest.mark.parametrize(
    "spec", [f"{name}.py:{kind}".rstrip(":") for name, kinds in KINDS.items() for kind in kinds]
)
def test_every_recipe_is_understood(spec):
    recipe = read_config(str(ROOT / "configs/recipes" / spec))
    phases = train.recipe.phases(recipe, tiny_config().to_dict())
    assert [phase.name for phase in phases] == list(recipe.order)
    for phase in phases:
        assert bool(phase.steps) != (phase.config is not None)


def test_no_recipe_is_left_out():
    files = {p.stem for p in (ROOT / "configs/recipes").glob("*.py")}
    assert files - {"imagenet", "language"} == KINDS.keys()


@pytest.mark.parametrize("name", ["int8", "qat", "prune", "share"])
def test_an_unknown_kind_names_those_there_are(name):
    with pytest.raises(ValueError, match=KINDS[name][0]):
        read_config(str(ROOT / f"configs/recipes/{name}.py:nothing"))


def test_read_config_refuses_what_is_no_configuration():
    with pytest.raises(ValueError, match="is not there"):
        read_config("configs/absent.py")
    with pytest.raises(ValueError, match="no get_config"):
        read_config(str(ROOT / "configs/recipes/imagenet.py"))


def test_out_is_asked_for_and_a_missing_workdir_told():
    recipe = "--recipe=configs/recipes/int8.py"
    code, output = run("compress", "--workdir=/nowhere", recipe)
    assert code != 0
    assert "--out=DIR is needed" in output
    code, output = run("compress", "--workdir=/nowhere", recipe, "--explain")
    assert code == 1
    assert "/nowhere does not exist" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_whole_compression_and_its_table(tmp_path):
    experiment = train.build(tiny_config())
    base = tmp_path / "seed-0" / "base"
    settings = {"config": experiment.config.to_dict(), "model": experiment.description}
    with (
        train.Workdir.create(base, **settings, environment={}) as folder,
        train.Checkpointer(folder.checkpoints) as checkpointer,
    ):
        checkpointer.save(0, experiment.init(), {}, force=True)
    flags = [f"--workdir={base}", "--recipe=configs/recipes/int8.py:dynamic"]
    code, output = run("compress", *flags, "--explain")
    assert code == 0, output
    assert "phase quantise" in output
    code, output = run("compress", *flags, f"--out={tmp_path / 'out'}")
    assert code == 0, output
    assert "fewer bytes" in output
    assert "report: " in output
    before, after = (
        sum(
            np.asarray(v).nbytes
            for part in train.split(train.load(path))[1:]
            for v in part.values()
        )
        for path in (base, tmp_path / "out")
    )
    assert after < before / 2
