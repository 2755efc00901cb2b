# SPDX-License-Identifier: Apache-2.0
"""Published tables: the data is whole, verdicts are right, docs/tables.md is what is computed."""

import importlib
import re
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from efficient_layers import models
from efficient_layers.evidence import tables_page
from efficient_layers.evidence.paper_tables import Misprint, find, load
from efficient_layers.evidence.reproduce import COMPUTATIONS, arithmetic, verdicts
from efficient_layers.evidence.reproduce.scores import mean
from efficient_layers.evidence.verdict import Computed, judge, number

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tables.md"
IDS = [table.id for table in load()]
# One or two of each group that need no large model.
QUICK = ["deep_compression_t2", "menghani_cifar10", "mobilenet_v3_t1_t2_arch", "squeezenet_v11"]
QUICK += ["lra_t1", "mamba_t1", "albert_t3", "efficientnet_params", "mnist1d_notebook"]


@pytest.mark.fast
def test_the_data_is_whole():
    assert len(IDS) == len(set(IDS)) == 61
    assert sum(len(table.rows) for table in load()) == 508
    for table in load():
        columns = [*table.given, *table.measured, *table.timed]
        assert set(columns) <= set(table.columns), table.id
        assert len(columns) == len(set(columns)), table.id
        assert bool(table.measured) == bool(table.data), table.id
        assert bool(table.timed) == bool(table.device), table.id
        assert len(table.configs) in (0, 1, len(table.rows)), table.id
        assert (table.id in COMPUTATIONS) == bool(table.computed) == bool(table.how), table.id
        assert table.source, table.id
        for misprint in table.misprints:
            rows = [row for row in table.rows if table.misprint(row, misprint.column) == misprint]
            assert len(rows) == 1, misprint


def fraction(text):
    return Computed(Fraction(text))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("published", "computed", "kind", "text"),
    [
        (3504872, fraction("3504872"), "exact", "3504872"),
        (Decimal("4.2"), fraction("4.2317"), "rounds to", "4.232"),
        (Decimal("4.20"), fraction("4.2317"), "does not reproduce", "4.2317"),
        (Decimal("4.25"), fraction("4.245"), "rounds to", "4.2450"),
        (290, fraction("290.68"), "truncates to", "290.68"),
        (317, fraction("325.4"), "does not reproduce", "325.40"),
        (5, fraction("4.9999"), "rounds to", "4.99"),
        (15300, Computed(Fraction(15346), unit=Fraction(100)), "rounds to", "15346"),
        (15300, fraction("15346"), "does not reproduce", "15346"),
        ("27 KB", fraction("26.55"), "rounds to", "26.55"),
        (
            Decimal("64.2"),
            Computed(Fraction("64.144"), slack=Fraction("0.05")),
            "rounds to",
            "64.144",
        ),
        ("RE", Computed("RE"), "exact", "RE"),
        (True, Computed(False), "does not reproduce", "False"),
        (1, None, "needs data", ""),
        (1, "no family here", "not computed", ""),
    ],
)
def test_verdicts(published, computed, kind, text):
    verdict = judge(published, computed)
    assert (verdict.kind, verdict.computed) == (kind, text)


@pytest.mark.fast
def test_a_misprint_shows_its_correction():
    misprint = Misprint("Small", "MACs_M", "57", "counted")
    verdict = judge(66, fraction("56.92"), misprint)
    assert (verdict.kind, verdict.remark) == ("known misprint", "57 (counted)")
    assert "57" in judge(66, None, misprint).remark
    with pytest.raises(ValueError, match=r"correction 57 of Small, MACs_M is not what was.*60"):
        judge(66, fraction("60"), misprint)


@pytest.mark.fast
def test_a_cell_without_a_number_is_named():
    with pytest.raises(ValueError, match="'FAIL'"):
        number("FAIL")


@pytest.mark.fast
def test_a_mean_allows_for_the_rounding_of_its_cells():
    assert mean([["84.0/82.0"], [Decimal("90.0")]]) == Computed(Fraction("86.5"), Fraction("0.05"))


@pytest.mark.fast
def test_networks_without_a_family():
    assert arithmetic.params(arithmetic.ALEXNET) == 60965224  # Krizhevsky et al. say 60 million
    assert arithmetic.params(arithmetic.caffe_squeezenet("v1.0")) == 1248424  # torchvision's
    assert arithmetic.params(arithmetic.caffe_squeezenet("v1.1")) == 1235496


@pytest.mark.fast
def test_an_unknown_table_names_the_nearest():
    with pytest.raises(ValueError, match=r"'gpt2_t3'.*gpt2_t2"):
        find("gpt2_t3")


@pytest.mark.parametrize("id", QUICK)
def test_quick_tables_are_as_committed(id):
    assert tables_page.section(find(id)) in PAGE.read_text(), _remedy(id)


@pytest.mark.slow
def test_every_table_is_as_committed():
    page = PAGE.read_text()
    moved = [id for id in IDS if tables_page.section(find(id)) not in page]
    assert not moved, _remedy(moved)
    assert tables_page.page().rstrip() + "\n" == page


def _remedy(moved):
    return f"{moved} moved: run {tables_page.COMMAND} and look at the difference."


@pytest.mark.fast
def test_every_table_is_in_the_page_and_in_the_list():
    sections = re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE)
    assert sections == IDS
    assert [tables_page.summary(table).split(":")[0] for table in load()] == IDS


def test_the_published_integers_of_torchvision_are_exact():
    """As committed: the slow test recomputes them."""
    page = PAGE.read_text().split("## torchvision_meta")[1].split("\n## ")[0]
    lines = [line for line in page.splitlines() if "| num_params |" in line]
    assert sum("| exact |" in line for line in lines) >= 37
    assert all("| exact |" in line or "no family here" in line for line in lines)


def test_every_config_exists_and_takes_the_flags():
    for run in sorted({config for table in load() for config in table.configs if config}):
        config, *flags = run.split(" ")
        path, _, variant = config.partition(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        values = module.get_config(variant) if variant else module.get_config()
        assert values.model.name in models.names()
        for flag in flags:
            *path, key = flag.removeprefix("--config.").partition("=")[0].split(".")
            assert path, flag
            found = values
            for part in path:
                found = found[part]
            assert key in found, run


def test_the_command_names_the_nearest_table():
    command = [sys.executable, "-m", "launch.reproduce", "--table=menghani_dwsepp"]
    bad = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert bad.returncode == 1
    assert "menghani_dwsep" in bad.stderr
    assert "Traceback" not in bad.stderr


@pytest.mark.fast
def test_a_section_shows_published_computed_and_verdict():
    assert "| 864 | 864 | exact |" in tables_page.section(find("menghani_dwsep"))


def test_every_computed_cell_has_a_verdict():
    table = find("deep_compression_t1")
    for row, cells in zip(table.rows, verdicts(table), strict=True):
        assert set(cells) == {c for c in table.columns if c != "network" and row[c] != "-"}
