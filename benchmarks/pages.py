"""Pages of docs/ that several commands write to, a section each."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path

import pandas as pd


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
    rows = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    return "\n".join("| " + " | ".join(str(value) for value in row) + " |" for row in rows)


def machine(*libraries: str) -> str:
    """Processor, cores, and versions of Python and these libraries, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries)
    processor = names[0] if names else platform.processor()
    return f"{processor}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"
