# SPDX-License-Identifier: Apache-2.0
"""Comparing workdirs: globs, the page, the table in the terminal."""

import io

import pytest
from rich.console import Console

from efficient_layers.report import compare_workdirs, find_workdirs, write_report

pytestmark = pytest.mark.fast


@pytest.fixture
def workdirs(make_report, tmp_path):
    for name, accuracy, scale in [("s", 0.9, 0.5), ("m", 0.98, 1.0), ("l", 0.96, 1.5)]:
        write_report(tmp_path / "runs" / name, make_report("net [bold]", accuracy, scale))
    (tmp_path / "runs" / "unfinished").mkdir()
    return tmp_path / "runs"


def test_globs_take_finished_runs_once(workdirs):
    found = find_workdirs([f"{workdirs}/*", f"{workdirs}/s/", " "])
    assert found == [f"{workdirs}/{name}" for name in ("l", "m", "s")]


def test_a_glob_without_reports_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds a report.json.*\n.*launch.train"):
        find_workdirs([f"{tmp_path}/*"])


def test_page_and_table(workdirs, tmp_path):
    console = Console(file=io.StringIO(), width=100)
    out = tmp_path / "pages" / "compare.html"
    assert compare_workdirs([f"{workdirs}/*"], out, console=console) == out
    assert "3 runs compared" in out.read_text()
    text = console.file.getvalue()
    for words in ("net [bold]", "l: by m", "s *", "hypervolume", "reference point", "98.00"):
        assert words in text
    assert max(map(len, text.splitlines()[:6])) <= 100


def test_a_named_folder_without_report_is_an_error(workdirs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"unfinished/report\.json does not exist"):
        compare_workdirs([f"{workdirs}/s", f"{workdirs}/unfinished"], tmp_path / "c.html")
    assert not (tmp_path / "c.html").exists()


def test_no_workdirs(tmp_path):
    with pytest.raises(ValueError, match="name at least one folder"):
        compare_workdirs([""], tmp_path / "c.html")
