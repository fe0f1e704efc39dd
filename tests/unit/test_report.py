import base64
import re
import sys
import urllib.parse

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers import report

PICTURE = base64.b64encode(b"a picture").decode()
OTHER = base64.b64encode(b"another one").decode()
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/01.ipynb)"
)


def executed(source, outputs=(), **metadata):
    return new_code_cell(source, execution_count=1, outputs=list(outputs), metadata=metadata)


def write(path, *cells):
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """An executed notebook with a badge, two pictures and two findings."""
    findings = new_output("display_data", {"text/markdown": "- **9 of 10** are right\nby the way\n- `a < b`"})
    return write(
        tmp_path_factory.mktemp("executed") / "01-First.ipynb",
        new_markdown_cell(f"# 01 First: is it & <so>?\n\n{BADGE}\n\nThe question."),
        executed("0 + 1", [new_output("display_data", {"image/png": OTHER})]),
        executed("1 + 1", [new_output("display_data", {"image/png": PICTURE})], tags=["cover"]),
        executed("work()", [new_output("stream", text="work:  50%|==  | 1/2 [00:01<00:01]\n2 of 2 done\n")]),
        executed("found()", [findings], tags=["findings"]),
        new_code_cell(""),
    )


@pytest.fixture(scope="module")
def written(notebook):
    """(index, page) of its report."""
    index = report.write_report([notebook], notebook.parent / "report")
    return index.read_text(), index.with_name("01-First.html").read_text()


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    for number, text in enumerate(["", "[1]", "{}", '{"nbformat": 4}', '{"nbformat": 3, "worksheets": []}']):
        (tmp_path / f"{number}.ipynb").write_text(text)
        with pytest.raises(ValueError, match=rf"{number}\.ipynb is no notebook"):
            report.write_report([tmp_path / f"{number}.ipynb"], tmp_path / "report")


def test_beside_a_file_that_is_no_notebook_no_page_is_written(notebook, tmp_path):
    (tmp_path / "2.ipynb").write_text("{}")
    with pytest.raises(ValueError, match=r"2\.ipynb is no notebook"):
        report.write_report([notebook, tmp_path / "2.ipynb"], tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("name", ["01-First", "index"])
def test_two_pages_of_one_name_are_refused(notebook, tmp_path, name):
    other = tmp_path / f"{name}.ipynb"
    other.write_bytes(notebook.read_bytes())
    with pytest.raises(ValueError, match=rf"two pages would be called {name}\.html: rename a notebook"):
        report.write_report([notebook, other], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_index_finds_a_page_whatever_its_name(notebook, tmp_path):
    (tmp_path / "run #2 50%.ipynb").write_bytes(notebook.read_bytes())
    index = report.write_report([tmp_path / "run #2 50%.ipynb"], tmp_path)
    link = re.search(r'href="([^"]+)"', index.read_text())[1]
    assert (tmp_path / urllib.parse.unquote(link)).is_file()
    assert "#" not in link


def test_a_page_has_its_outputs_and_its_code_a_tick_away(written):
    _, page = written
    assert f"data:image/png;base64,{PICTURE}" in page
    assert "9 of 10" in page
    assert 'document.body.classList.add("without-code")' in page
    assert "Show code" in page
    assert page.count('<div class="report-bar">') == 1
    assert page.index("<body") < page.index('<div class="report-bar">') < page.index("The question.")


def test_a_page_is_without_the_bars_that_told_how_far_it_was(written):
    assert "2 of 2 done" in written[1]
    assert "<code>a &lt; b</code>" in written[1]
    assert "[00:01" not in written[1]


def test_the_name_of_a_label_brings_no_tag_into_a_page(tmp_path):
    findings = new_output("display_data", {"text/markdown": "- Classes: <img src=x onerror=alert(1)>"})
    report.write_report([write(tmp_path / "1.ipynb", executed("found()", [findings], tags=["findings"]))], tmp_path)
    for page in ("1.html", "index.html"):
        assert "&lt;img src=x onerror=alert(1)&gt;" in (tmp_path / page).read_text()


def test_the_index_says_when_and_with_what_parameters_a_notebook_ran(tmp_path):
    path = write(tmp_path / "1.ipynb", executed("1", []))
    assert 'class="run"' not in report.write_report([path], tmp_path).read_text()
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["papermill"] = {"start_time": "2026-11-28T09:31:20.853470+00:00", "duration": None}  # stopped
    nbformat.write(notebook, path)
    assert 'class="run"' not in report.write_report([path], tmp_path).read_text()
    run = {"start_time": "2026-11-28T09:31:20.853470+00:00", "duration": 393.9}
    told = "Parameters: raw_data=&#x27;&lt;a&gt;&#x27;"
    for parameters, said in (({"raw_data": "<a>"}, told), ({}, "All parameters as they are")):
        notebook.metadata["papermill"] = run | {"parameters": parameters}
        nbformat.write(notebook, path)
        assert f"2026-11-28 09:31 UTC, 6 min 34 s. {said}" in report.write_report([path], tmp_path).read_text()


def test_a_cell_tagged_shown_is_not_hidden_with_the_code(tmp_path):
    cell = executed("loop()", [], tags=["shown"])
    report.write_report([write(tmp_path / "1.ipynb", cell)], tmp_path)
    page = (tmp_path / "1.html").read_text()
    assert "celltag_shown" in page.partition("<body")[2]
    assert "body.without-code .jp-CodeCell:not(.celltag_shown) > .jp-Cell-inputWrapper { display: none }" in page


def test_the_command_says_in_one_sentence_what_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "broken.ipynb").write_text("{")
    for name in ("missing", "broken"):
        monkeypatch.setattr(sys, "argv", ["report", str(tmp_path / f"{name}.ipynb"), "--folder", str(tmp_path)])
        with pytest.raises(SystemExit, match=r"^helpers\.report: "):
            report.main()


def test_nothing_is_fetched_when_a_page_is_opened(written):
    for page in written:
        assert not re.search(r"<(script|img|link|iframe)[^>]*\s(src|href)\s*=\s*[\"']?(https?:)?//", page)
        assert "@import" not in page


def test_the_badge_is_left_out_of_the_page(written):
    assert all("colab" not in page for page in written)
    assert "The question." in written[1]


def test_the_index_has_a_card_with_title_findings_and_the_picture_that_is_its_cover(written):
    index, _ = written
    assert '<a class="page" href="01-First.html"><h2>01 First: is it &amp; &lt;so&gt;?</h2>' in index
    assert "<ul><li><b>9 of 10</b> are right</li><li><code>a &lt; b</code></li></ul>" in index
    assert re.findall('<img alt=".*?" src="(.*?)">', index) == [f"data:image/png;base64,{PICTURE}"]


def test_pages_stand_in_the_order_in_which_they_are_given(notebook, tmp_path):
    other = write(tmp_path / "00-Later.ipynb", new_markdown_cell("No title"), executed("1"))
    index = report.write_report([notebook, other], tmp_path).read_text()
    assert re.findall(r'href="(.+?)"><h2>(.+?)</h2>', index) == [
        ("01-First.html", "01 First: is it &amp; &lt;so&gt;?"),
        ("00-Later.html", "00-Later"),
    ]


@pytest.mark.parametrize(
    "cells",
    [
        [executed("1"), new_code_cell("2")],
        [new_markdown_cell("# Prose alone")],
        [executed("1"), executed("1 / 0", [new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])])],
    ],
)
def test_a_notebook_that_was_not_run_to_its_end_is_refused(tmp_path, cells):
    path = write(tmp_path / "half.ipynb", *cells)
    with pytest.raises(ValueError, match=r"half\.ipynb was not run to its end: run it with papermill first"):
        report.write_report([path], tmp_path)
    assert not (tmp_path / "index.html").exists()


def test_the_command_says_where_the_report_is(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report", str(notebook), "--folder", str(tmp_path / "new")])
    report.main()
    assert capsys.readouterr().out == f"Report: {tmp_path / 'new' / 'index.html'}\n"
    assert (tmp_path / "new" / "01-First.html").exists()


@pytest.mark.parametrize("label", ["`<img src=x onerror=alert(1)>``", "[ok](javascript:alert(1))", "\\`<b>`"])
def test_no_backtick_or_link_of_a_label_reaches_a_page(label):
    shown = report._without_tags(f"- In `*.csv`, `a < b`. Classes: {label}")
    assert shown.startswith("- In <code>&#42;.csv</code>, <code>a &lt; b</code>. Classes: ")
    assert not re.search(r"<(?!/?code>)|\]\(", shown)
