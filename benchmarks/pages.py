"""What the commands that write docs/ share: notebooks that are run once, and pages with a section for each."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from pathlib import Path

import pandas as pd
import papermill

from helpers import session

NOTEBOOKS = session.root() / "notebooks"


def run(notebook: str, result: Path, parameters: dict) -> None:
    """Run a notebook, if its result is not there yet; the executed one lies beside it.

    Raises SystemExit where the result was made with other parameters, which the page would not tell.
    """
    noted, asked = result.with_name(f"{result.name}.json"), json.dumps(parameters, indent=2)
    if not result.exists():
        print(f"{notebook} into {result}", flush=True)
        result.parent.mkdir(parents=True, exist_ok=True)
        noted.write_text(asked, encoding="utf-8")
        output = result.with_name(f"{notebook}-{result.stem}.ipynb")
        papermill.execute_notebook(NOTEBOOKS / f"{notebook}.ipynb", output, parameters, progress_bar=False)
    elif not noted.exists() or noted.read_text(encoding="utf-8") != asked:
        raise SystemExit(f"{result} was made with other parameters: remove {result.parent} to measure anew")


def put_section(page: Path, title: str, text: str) -> None:
    """Replace the section "## title" of a page, or add it at the end; the others stay as they are."""
    old = page.read_text(encoding="utf-8") if page.exists() else f"# {page.stem.capitalize()}\n"
    section = f"## {title}\n\n{text.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    found = pattern.search(old)
    new = f"{old[: found.start()]}{section}\n{old[found.end() :]}" if found else f"{old.rstrip()}\n\n{section}"
    page.write_text(new.rstrip() + "\n", encoding="utf-8")


def markdown(table: pd.DataFrame) -> str:
    """The table with its index as a Markdown table."""
    table = table.reset_index()
    rows = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(str(value) for value in row) + " |" for row in rows)


def machine(*libraries: str) -> str:
    """Processor, cores, and versions of Python and these libraries, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries)
    processor = names[0] if names else platform.processor()
    return f"{processor}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"
