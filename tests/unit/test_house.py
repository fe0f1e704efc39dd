"""What holds for the whole house: its floors, its pins, and that every public function says what it takes and gives."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "helpers").glob("*.py") if path.stem != "__init__")
FLOORS = {  # the plan in the README, the only place where it is written down
    module: int(floor)
    for module, floor in re.findall(r"^  (\w+) +(\d)  \S", (ROOT / "README.md").read_text(), re.MULTILINE)
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]
EXTRAS = PROJECT["optional-dependencies"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
DIRECT = CORE + [Requirement(line) for name in ("notebooks", "dev", "onnx") for line in EXTRAS[name]]


def tree(module):
    return ast.parse((ROOT / "helpers" / f"{module}.py").read_text())


def imported(module):
    """The modules of helpers that one imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("helpers.")}


def reached(module):
    """The modules that importing one brings in."""
    below = imported(module)
    return below.union(*(reached(other) for other in below))


def public_functions(module):
    """Those of the module and the methods of its public classes."""
    body = tree(module).body
    classes = [node for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    nodes = body + [node for owner in classes for node in owner.body]
    return [node for node in nodes if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def test_every_module_has_its_floor_and_every_floor_its_module():
    assert sorted(FLOORS) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_the_floors_below(module):
    assert {name: FLOORS[name] for name in imported(module) if FLOORS[name] >= FLOORS[module]} == {}


@pytest.mark.parametrize("module", ["plots", "curves", "evaluation", "calibration", "uncertainty"])
def test_what_takes_arrays_and_tables_knows_no_networks(module):
    assert reached(module).isdisjoint({"networks", "training", "attribution", "images"})
    imports = [node for node in tree(module).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("torch" in ast.unparse(node) for node in imports)


def test_conda_gives_python_and_everything_else_comes_from_the_package_and_its_pins():
    python, *others = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert others == ["pip", {"pip": ["--constraint constraints.txt", "--editable .[notebooks,dev,onnx]"]}]
    range_ = Requirement(python)
    assert range_.name == "python"
    assert str(min(range_.specifier, key=lambda part: part.version)) == PROJECT["requires-python"]


def test_what_a_module_imports_comes_with_the_package():
    """What an extra brings is imported where it is used; the report is a command for those who run notebooks."""
    named = {"PIL": "pillow", "sklearn": "scikit-learn"}
    for module in sorted(set(MODULES) - {"report"}):
        nodes = [node for node in tree(module).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {getattr(node, "module", None) or node.names[0].name for node in nodes}
        tops = {name.split(".")[0] for name in names} - {"helpers"} - sys.stdlib_module_names
        assert {named.get(top, top) for top in tops} <= {requirement.name for requirement in CORE}, module


def test_installing_helpers_leaves_a_running_kernel_as_it_is():
    """In Colab the set-up cell installs the package into the kernel that runs it."""
    kernel = {Requirement(line).name for line in EXTRAS["notebooks"]}
    assert kernel >= {"ipykernel", "jupyterlab", "ipywidgets"}
    assert kernel.isdisjoint(requirement.name for requirement in CORE)


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_each_dependency_has_one_pin_in_its_range(requirement, python):
    here = {"python_version": python, "python_full_version": f"{python}.4", "sys_platform": "linux"}
    pins = [pin for pin in PINS if pin.name == canonicalize_name(requirement.name)]
    (pin,) = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(here)]
    (exact,) = pin.specifier
    assert exact.operator == "=="
    assert exact.version in requirement.specifier


def test_every_pin_is_exact_and_names_no_host_or_file():
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in PINS)
    assert all(pin.url is None for pin in PINS)
    assert not re.search(r"://|@|^-", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_the_tested_pythons_are_those_the_package_and_its_environment_allow():
    python = Requirement(yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][0])
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert "3.11" in tested
    for allowed in (python.specifier, SpecifierSet(PROJECT["requires-python"])):
        assert all(f"{version}.4" in allowed for version in tested)
        assert "3.10.9" not in allowed


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_says_what_it_does_takes_and_gives(module):
    for function in public_functions(module):
        arguments = function.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        untyped = [one.arg for one in named if one and one.arg != "self" and one.annotation is None]
        assert ast.get_docstring(function), f"{function.name} has no docstring"
        assert untyped == [], f"{function.name} does not say what these are"
        assert function.returns is not None, f"{function.name} does not say what it gives"


def test_the_glossary_is_in_order_and_its_italics_have_a_line():
    lines = re.findall(r"^\| (.+?) \| (.+?) \| \[", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    terms = [term.lower() for term, _ in lines]
    assert terms == sorted(set(terms))
    italics = {word.lower() for _, meaning in lines for word in re.findall(r"\*([^*]+)\*", meaning)}
    assert not {word.removesuffix("s") for word in italics} - {term.removesuffix("s") for term in terms}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("target", "asked"), [(["run"], 0), (["run", "DEFECT="], 2), (["run", "DEFECT=bad one"], 2), (["pictures"], 0)]
)
def test_make_hands_a_defect_to_two_notebooks_where_one_is_named_or_none_is_wanted(target, asked):
    how = {"cwd": ROOT, "env": _environment(), "capture_output": True, "text": True, "check": True}
    assert subprocess.run(["make", "--dry-run", *target], **how).stdout.count('-r defect "$DEFECT"') == asked


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("parameters", "fixed"),
    [
        ("PARAMETERS=-p output_archive transfer/second.zip", "output_archive"),
        ("PREPARATION=-p output_archive transfer/second.zip", "output_archive"),
        ("PARAMETERS=-y '{defect: torn}'", "defect"),
        ("PARAMETERS=-p defect_share 0.02", ""),
    ],
)
def test_make_refuses_what_would_be_known_to_one_notebook_alone(parameters, fixed):
    how = {"cwd": ROOT, "env": _environment(), "capture_output": True, "text": True, "check": True}
    said = subprocess.run(["make", "--dry-run", "run", parameters], **how).stdout
    assert f'test -z "{fixed}" || {{ echo "Notebook 03 would not know of another {fixed}:' in said


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_takes_nothing_but_its_own_pages_out_of_a_folder():
    how = {"cwd": ROOT, "env": _environment(), "capture_output": True, "text": True, "check": True}
    said = subprocess.run(["make", "--dry-run", "run", "REPORT=reports"], **how).stdout
    (removed,) = re.findall(r"rm -f (.*)", said)
    assert "*" not in removed
    assert set(re.findall(r'"reports/(.+?)"', removed)) == {
        "index.html",
        *(f"{path.stem}.{end}" for path in sorted((ROOT / "notebooks").glob("0[1-3]*")) for end in ("ipynb", "html")),
    }


def _environment():
    return {name: value for name, value in os.environ.items() if name not in ("DEFECT", "MAKEFLAGS")}
