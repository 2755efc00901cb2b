# SPDX-License-Identifier: Apache-2.0
"""Published tables computed anew: published | computed | verdict.

python -m launch.reproduce --list
python -m launch.reproduce --table=slim_mobilenet_v2
python -m launch.reproduce --all --out=docs/tables.md     # minutes
"""

import sys
from pathlib import Path

from absl import app, flags

from efficient_layers.evidence import paper_tables, tables_page
from launch import quiet

_LIST = flags.DEFINE_bool("list", False, "Name the tables.")
_TABLE = flags.DEFINE_string("table", None, "One table, by its name.")
_ALL = flags.DEFINE_bool("all", False, "All tables.")
_OUT = flags.DEFINE_string("out", None, "A Markdown file to write; otherwise it is printed.")


def main(argv: list[str]) -> None:
    """Prints or writes tables."""
    quiet()
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Got {argv[1:]}.")
    if [_LIST.value, _TABLE.value is not None, _ALL.value].count(True) != 1:
        raise app.UsageError("Expected one of --list, --table=NAME, --all.")
    try:
        text = _text()
        if _OUT.value:
            Path(_OUT.value).write_text(text + "\n")
            print(f"wrote {_OUT.value}")
        else:
            print(text)
    except (ValueError, OSError) as error:
        sys.exit(f"launch.reproduce: {error}")


def _text() -> str:
    if _LIST.value:
        return "\n".join(tables_page.summary(table) for table in paper_tables.load())
    if _TABLE.value is not None:
        return tables_page.section(paper_tables.find(_TABLE.value)).rstrip()
    return tables_page.page().rstrip()


if __name__ == "__main__":
    app.run(main)
