"""The report: executed notebooks as HTML pages with an index that opens from disk. Also a command."""

from __future__ import annotations

import argparse
import html
import re
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import nbformat
from nbconvert import HTMLExporter

_FIRST_PAGE = "index.html"
_STYLE = """
<style>
body.without-code .jp-CodeCell:not(.celltag_shown) > .jp-Cell-inputWrapper { display: none }
body.without-code .jp-Cell-outputWrapper .jp-OutputPrompt { visibility: hidden }
body.without-code .jp-CodeCell:not(.celltag_shown, :has(.jp-OutputArea-child)) { display: none }
body.without-code .jp-OutputArea:not(:has(img, table, ul)) { max-height: 18em; overflow: auto }
.jp-RenderedHTMLCommon table { margin-left: 0 }
@media print { .report-bar { display: none } .jp-OutputArea { max-height: none !important }
  .jp-RenderedHTMLCommon { zoom: 0.8 } pre { font-size: 9px !important }
  img, tr { break-inside: avoid } h1, h2 { break-after: avoid } }
.report-bar { position: sticky; top: 0; z-index: 9; padding: 8px 16px; background: #fff; border-bottom: 1px solid #ddd;
  font: 14px system-ui, sans-serif; display: flex; gap: 16px; align-items: center }
main { max-width: 1100px; margin: 0 auto }
</style>"""
_BAR = """
<div class="report-bar"><a href="index.html">All pages</a>
<label><input type="checkbox" onchange="document.body.classList.toggle('without-code', !this.checked)"> Show code
</label>
</div>"""
_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Report</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 760px; margin: 48px auto; padding: 0 16px; color: #222 }}
a.page {{ display: block; padding: 16px 20px; margin: 12px 0; border: 1px solid #ddd; border-radius: 8px;
  text-decoration: none; color: inherit }}
a.page:hover {{ border-color: #0072B2 }}
h2 {{ margin: 0 0 4px; font-size: 18px; color: #0072B2 }} p {{ margin: 0 }} .run {{ color: #666; font-size: 13px }}
ul {{ margin: 8px 0 0; padding-left: 20px }} img {{ display: block; max-width: 100%; max-height: 280px; margin: 8px 0 }}
</style></head><body><h1>Report</h1>
<p>One page for each notebook, in the order in which they ran. The code behind a page is a tick away, at its top.</p>
{pages}</body></html>
"""


def write_report(notebooks: list[Path], folder: Path) -> Path:
    """One page for each executed notebook, figures embedded, and the index; returns the index's path.

    Raises ValueError where a file is no notebook, was not executed to its end, or has the name of another one.
    """
    pages = Counter(f"{path.stem}.html" for path in notebooks) + Counter([_FIRST_PAGE])
    if twice := [page for page, count in pages.items() if count > 1]:
        raise ValueError(
            f"two pages would be called {twice[0]}: rename a notebook, or give each run a report of its own"
        )
    executed = {path: _read(path) for path in notebooks}  # nothing is written before all are known to be good
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for path, notebook in executed.items():
        entries.append(_entry(path, notebook))
        _clean(notebook)
        body, _ = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True).from_notebook_node(notebook)
        body = re.sub(r"<script[^>]*src=[^>]*>\s*</script>", "", body)  # opens from disk, with no network
        body = re.sub(r'<p><a href="https://colab[^>]*>.*?</p>', "", body, flags=re.DOTALL)
        page = re.sub(r"<body([^>]*)>", lambda tag: _open_body(tag[1]), body, count=1)
        (folder / f"{path.stem}.html").write_text(page.replace("</head>", f"{_STYLE}</head>", 1), encoding="utf-8")
    index = folder / _FIRST_PAGE
    index.write_text(_INDEX.format(pages="\n".join(entries)), encoding="utf-8")
    return index


def _read(path: Path) -> nbformat.NotebookNode:
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, AttributeError, nbformat.ValidationError):
        raise ValueError(f"{path} is no notebook") from None
    _check_executed(path, notebook)
    return notebook


def _open_body(attributes: str) -> str:
    return f'<body{attributes}><script>document.body.classList.add("without-code")</script>{_BAR}'


def _clean(notebook: nbformat.NotebookNode) -> None:
    """Take out progress bars, which say nothing once all is done, and tags that came in with the name of a label."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = re.sub(r"^.*\d(%\||it \[).*\n?", "", output.text, flags=re.MULTILINE)
            elif "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = _without_tags(output.data["text/markdown"])
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("text", " ")]


def _without_tags(markdown: str) -> str:
    """No tag and no link of it is left, whichever backticks its reader pairs: a label may hold some."""

    def shown(found: re.Match) -> str:
        if found[1] is None:
            return html.escape(found[0]).replace("](", "]&#40;")
        return f"<code>{html.escape(found[1]).replace('*', '&#42;').replace('_', '&#95;')}</code>"

    return re.sub(r"`([^`\n]*)`|[<&]|\]\(", shown, markdown)


def _check_executed(path: Path, notebook: nbformat.NotebookNode) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    failed = any(output.output_type == "error" for cell in code for output in cell.outputs)
    if not code or failed or any(cell.execution_count is None for cell in code):
        raise ValueError(f"{path} was not run to its end: run it with papermill first")


def _entry(path: Path, notebook: nbformat.NotebookNode) -> str:
    """A card of the index: the notebook's title, its run, the figure of its cell tagged "cover", and what it found."""
    title = re.search(r"^# (.+)$", notebook.cells[0].source, re.MULTILINE)
    found = "\n".join(_outputs(notebook, "findings", "text/markdown"))
    findings = [line[2:].strip() for line in found.splitlines() if line.startswith("- ")]
    items = "".join(f"<li>{_inline(line)}</li>" for line in findings)
    heading = html.escape(title[1] if title else path.stem)
    pictures = _outputs(notebook, "cover", "image/png")
    picture = f'<img alt="{heading}" src="data:image/png;base64,{pictures[0].strip()}">' if pictures else ""
    link = f'<a class="page" href="{quote(path.stem)}.html">'
    return f"{link}<h2>{heading}</h2>{_run(notebook)}{picture}<ul>{items}</ul></a>"


def _run(notebook: nbformat.NotebookNode) -> str:
    """When papermill ran it, for how long, and the parameters that it was given; "" where it ran otherwise."""
    run = notebook.metadata.get("papermill", {})
    if run.get("duration") is None:  # as after a run that was stopped, and brought to its end by hand
        return ""
    given = ", ".join(f"{name}={value!r}" for name, value in run.parameters.items())
    minutes, seconds = divmod(round(run.duration), 60)
    began = f"{run.start_time[:10]} {run.start_time[11:16]} UTC, {minutes} min {seconds} s"
    told = html.escape(f"Parameters: {given}") if given else "All parameters as they are"
    return f'<p class="run">{began}. {told}</p>'


def _outputs(notebook: nbformat.NotebookNode, tag: str, kind: str) -> list[str]:
    """What cells with this tag put out, of one MIME type."""
    cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return [data[kind] for data in outputs if kind in data]


def _inline(markdown: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", re.sub(r"`(.+?)`", r"<code>\1</code>", html.escape(markdown)))


def main() -> None:
    """python -m helpers.report NOTEBOOK... --folder report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path, help="executed notebooks")
    parser.add_argument("--folder", type=Path, default=Path("report"), help="where the pages go")
    arguments = parser.parse_args()
    try:
        print(f"Report: {write_report(arguments.notebooks, arguments.folder).resolve()}")
    except (ValueError, OSError) as error:
        sys.exit(f"helpers.report: {error}")


if __name__ == "__main__":
    main()
