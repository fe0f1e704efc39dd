"""What every notebook of the series keeps to, so that papermill, nbmake, Colab and a reader can rely on it."""

import ast
import functools
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = re.search(r'^Repository = "https://github.com/(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
LONGEST_CELL = 16  # lines

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@functools.cache  # no test changes a cell
def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def parameters(path):
    return [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]


def declared(path):
    return [node.targets[0].id for node in ast.parse(parameters(path)[0].source).body]


@functools.cache
def glossary():
    """(term, meaning, link) of each line of docs/glossary.md."""
    return re.findall(r"^\| (.+?) \| (.+?) \| \[\d\d\]\((.+?)\) \|$", (ROOT / "docs/glossary.md").read_text(), re.M)


def test_no_outputs_or_counts_are_kept(path):
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(path))


def test_cell_ids_are_unique_words_that_stay(path):
    ids = [cell.id for cell in read(path).cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", cell_id) for cell_id in ids)


def test_exactly_one_parameters_cell_of_literals_with_a_comment_on_each(path):
    (cell,) = parameters(path)
    lines = cell.source.splitlines()
    assert lines[0] == "# Parameters of this notebook"
    assert all("  # " in line for line in lines[1:])
    for node in ast.parse(cell.source).body:
        ast.literal_eval(node.value)  # raises where it is more than a literal


def test_parameters_are_checked_right_after_their_cell(path):
    cells = code_cells(path)
    position = [cell.id for cell in cells].index("parameters")
    assert "session.check_parameters(globals()" in cells[position + 1].source


def test_tiny_values_are_parameters_and_keep_away_from_a_persons_archives(path):
    mock = parameters(path)[0].metadata["nbmake"]["mock"]
    assert set(mock) <= set(declared(path))
    names = ("archive", "table")
    own = [name for name in declared(path) if name.endswith(names)]
    assert own
    assert all(mock[name].startswith("transfer/tiny/") for name in own)


def test_title_badge_question_and_what_goes_in_and_out_come_first(path):
    source = read(path).cells[0].source
    assert source.startswith(f"# {path.stem[:2]} ")
    assert f"colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{path.name}" in source
    assert all(word in source for word in ("**The question.**", "goes in", "comes out", "takes"))


def test_set_up_is_the_first_code_and_the_same_everywhere(path):
    set_up = code_cells(path)[0].source
    assert set_up == code_cells(NOTEBOOKS[0])[0].source
    assert f'"git+https://github.com/{REPOSITORY}"' in set_up
    assert not re.search(r"install.*torch", set_up)


def test_colab_opens_what_trains_on_a_gpu(path):
    wanted = read(path).metadata.get("accelerator")
    assert (wanted == "GPU") == (path.stem[:2] in ("02", "03", "04", "05", "06"))


def test_code_cells_are_short_and_there_is_about_as_much_prose(path):
    cells = read(path).cells
    lines = {cell.id: len(cell.source.splitlines()) for cell in code_cells(path) if cell.id != "parameters"}
    assert {name: count for name, count in lines.items() if count > LONGEST_CELL} == {}
    prose = sum(cell.cell_type == "markdown" for cell in cells)
    assert prose >= 0.85 * len(code_cells(path))


def test_it_ends_with_findings_from_variables_and_what_to_try_next(path):
    cells = read(path).cells
    (findings,) = [cell for cell in cells if "findings" in cell.metadata.get("tags", [])]
    assert "{" in findings.source
    assert cells[-1].source.startswith("## Try next")


def test_one_figure_is_its_cover_in_the_report(path):
    (cover,) = [cell for cell in read(path).cells if "cover" in cell.metadata.get("tags", [])]
    assert re.search(r"^(panels|plots|curves)\.", cover.source, re.MULTILINE)


def test_the_readme_lists_it(path):
    assert f"notebooks/{path.name}" in (ROOT / "README.md").read_text()


def test_no_name_takes_the_place_of_a_module(path):
    tree = ast.parse("\n".join(cell.source for cell in code_cells(path)))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "helpers"]
    modules = {alias.name for node in imports for alias in node.names}
    assert modules
    given = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    given |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not modules & given


def test_what_the_glossary_sends_a_reader_here_for_is_here(path):
    prose = " ".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown").replace("*", "").lower()
    terms = [term for term, _, link in glossary() if link.endswith(f"/{path.name}")]
    assert terms
    assert not [term for term in terms if term.lower() not in prose]
