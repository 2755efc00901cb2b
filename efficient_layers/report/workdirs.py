# SPDX-License-Identifier: Apache-2.0
"""The comparison of workdirs: read their reports, write the page, print the table."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from efficient_layers.report.compare import check_axes, compare_page
from efficient_layers.report.file import read_report
from efficient_layers.report.runs import collect, folder_names, metrics
from efficient_layers.report.terminal import comparison
from efficient_layers.report.trade_off import trade_off


def find_workdirs(patterns: Sequence[str]) -> list[str]:
    """Folders named by paths or globs, each once. A glob takes only folders with a report.json.

    Raises FileNotFoundError for a glob that finds none, with the command that makes a report.
    """
    found: list[str] = []
    for pattern in filter(None, (pattern.strip() for pattern in patterns)):
        if not glob.has_magic(pattern):
            found.append(pattern)
            continue
        hits = sorted(f for f in glob.glob(pattern) if os.path.exists(f"{f}/report.json"))
        if not hits:
            raise FileNotFoundError(
                f"No folder of {pattern!r} holds a report.json. Make one with\n"
                "    python -m launch.train --config=CONFIG.py --workdir=DIR"
            )
        found += hits
    return list(dict.fromkeys(os.path.normpath(folder) for folder in found))


def compare_workdirs(
    patterns: Sequence[str],
    out: str | os.PathLike[str],
    *,
    quality: str = "test_accuracy",
    x: str = "macs",
    y: str = "quality",
    console: Console | None = None,
) -> Path:
    """Write `compare_page` of the workdirs to `out`, print the same as a table, return the path.

    Raises FileNotFoundError for a missing report, `ReportError` for an unreadable one, ValueError
    for no workdirs, an unknown axis or a quality that no report holds.
    """
    axes = metrics(quality)
    check_axes(x, y, tuple(axes))
    folders = find_workdirs(patterns)
    if not folders:
        raise ValueError("No workdirs given: name at least one folder, --workdirs=DIR,DIR.")
    reports = [read_report(folder) for folder in folders]
    names = folder_names(folders)
    page = compare_page(reports, names=names, quality=quality, x=x, y=y)
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    runs = collect(reports, names=names, quality=quality)
    console = console or Console()
    console.print(comparison(runs, axes, trade_off(runs, axes[x], axes[y])))
    console.print(f"Page: {path}", soft_wrap=True, markup=False)
    return path
