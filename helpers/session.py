"""The set-up of a notebook: where the project is, which device, whether the parameters are right."""

from __future__ import annotations

import ast
import difflib
import importlib.metadata
import platform
import random
import re
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers import archives, compute, dialog

_FORMULA = re.compile(r"[=+\-@\t\r](?!\d*\.?\d*$)")  # a number with its sign is none
PARAMETERS_MARK = "# Parameters of this notebook"


class ParameterError(ValueError):
    """Parameters that a notebook does not know, or of a wrong type; the message lists all of them."""


def start() -> None:
    """Print the versions and the device at hand: what every set-up cell ends with.

    Figures go into the notebook, whatever backend the surroundings ask for, and tables show their texts in full.
    """
    import matplotlib  # here alone: the commands need none, and it complains where it cannot write

    pd.set_option("display.max_colwidth", None)
    matplotlib.rcParams["text.parse_math"] = False  # a label may hold a dollar sign
    if shell := dialog.ipython():
        shell.run_line_magic("matplotlib", "inline")
    compute.keep_memory()
    warnings.filterwarnings("ignore", "IProgress not found")  # captum asks for a widget, but shows no progress
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchvision", "captum")]
    print(f"Python {platform.python_version()}, {', '.join(versions)}, {torch.get_num_threads()} CPU threads")
    print(f"Device: {describe(pick_device('auto'))}")
    if dialog.in_colab() and not torch.cuda.is_available():
        print("No GPU here. To train on one: Runtime > Change runtime type > T4 GPU, then run all again")


def root() -> Path:
    """The folder that holds `transfer/`: the clone wherever one stands in it, else (Colab) the current folder."""
    clone = Path(__file__).resolve().parent.parent
    return clone if (clone / "notebooks").is_dir() else Path.cwd()


def resolve(path: str | Path) -> Path:
    """An absolute path for one that a parameter gives: as it stands where it exists, else below the root.

    Raises ParameterError for an empty one, which would mean the current folder, and for "~" of nobody.
    """
    if not str(path).strip():
        raise ParameterError("A path is empty: give a file or a folder")
    try:
        path = Path(path).expanduser()
    except RuntimeError as error:
        raise ParameterError(f"{path}: {error}") from error
    return path.resolve() if path.is_absolute() or path.exists() else root() / path


def output(path: str | Path, *taken: Path) -> Path:
    """Where a result goes, absolute as `resolve` makes it, in a folder that is there.

    taken: what is read, and where other results go.
    Raises ParameterError, before any work, where the path is one of these, lies in one of them (a .csv may), is a
    folder or a special file, ends in .work, or cannot be written to.
    """
    path = resolve(path)
    for other in (other.resolve() for other in taken):
        if path.resolve() == other:
            raise ParameterError(f"{path} is already an input or an output: give this result another path")
        if other in path.resolve().parents and path.suffix != ".csv":
            raise ParameterError(f"{path} lies in {other}, which is read: give this result a path elsewhere")
    if path.is_dir():
        raise ParameterError(f"{path} is a folder: give the path of a file in it")
    if path.suffix == ".work":
        raise ParameterError(f"{path} ends as the folders of checkpoints do: give another path")
    if path.exists() and not path.is_file():
        raise ParameterError(f"{path} is no ordinary file: give another path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.exists():
            path.open("a").close()  # another program may hold it open
    except OSError as error:
        raise ParameterError(f"{path} cannot be written to ({error.strerror}): give another path") from error
    return path


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write the table as CSV, whole or not at all, whatever letters its names have.

    A text that a spreadsheet would take for a formula, such as a file's name from outside, gets a ' in front.
    """
    with archives.atomic(path) as unfinished:
        texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
        safe = table.assign(**{name: table[name].map(_no_formula) for name in texts}).rename(columns=_no_formula)
        safe.to_csv(unfinished, index=False, errors="backslashreplace")


def resolve_weights(weights: str) -> str:
    """What a network starts from: "imagenet" or "none" as they are, or the absolute path of a weights file.

    Raises FileNotFoundError for a file that is not there.
    """
    if weights in ("imagenet", "none"):
        return weights
    return str(dialog.require(resolve(weights), 'give weights as "imagenet", "none" or a path'))


def pick_device(device: str) -> torch.device:
    """The device of that name, or for "auto" a GPU where there is one. Raises ParameterError where it is not there.

    "auto" never takes "mps", on which nothing here was ever run: PyTorch has no poolings there whose sizes do not
    divide, as those of VGG.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        if device != "cuda" or not torch.cuda.is_available():  # a tensor would take memory of the first GPU
            torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(f"device {device!r} is not usable ({reason}): use 'auto', 'cpu' or 'cuda'") from error
    return chosen


def describe(device: torch.device) -> str:
    """The device in words."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def set_seed(seed: int) -> None:
    """Seed every generator that a library may draw from, and take convolutions that give the same each time.

    Raises ParameterError for a number that no generator takes.
    """
    if not 0 <= seed < 2**32:
        raise ParameterError(f"seed={seed} must be 0 or more, and below 2 to the power of 32")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True


def check_parameters(namespace: dict[str, object], **several: tuple[type | str, ...]) -> dict[str, object]:
    """The notebook's parameters with the values they now have, after papermill or nbmake set theirs.

    namespace: `globals()` of the notebook. What the parameters cell declares is what there is: a parameter has the
    type of its literal, or one of those in `several`, which may also hold words that it may be. A whole number may
    stand for a fraction.
    Raises ParameterError that names every unknown parameter and every wrong type.
    """
    cells = [cell for cell in namespace["In"] if isinstance(cell, str)]
    positions = [i for i, cell in enumerate(cells) if cell.lstrip().startswith(PARAMETERS_MARK)]
    if not positions:
        raise ParameterError(f"Run the parameters cell first: the one that starts with {PARAMETERS_MARK!r}")
    declared = {name: (kind,) for name, kind in _assignments(cells[positions[-1]]).items()} | several
    given = {name for cell in cells[positions[-1] + 1 : -1] for name in _assignments(cell)}
    injected = set() if dialog.someone_can_answer() else given  # a person's own cells may assign what they like
    problems = [_unknown(name, declared) for name in sorted(injected - set(declared))]
    problems += [_wrong_type(name, namespace[name], allowed) for name, allowed in declared.items()]
    if any(problems):
        takes = ", ".join(declared)
        raise ParameterError("\n".join([*filter(None, problems), f"This notebook takes: {takes}"]))
    return {name: namespace[name] for name in declared}


def _no_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _assignments(source: str) -> dict[str, type]:
    """Names assigned at the top level of a cell, with the types of their literals."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell with a magic in it
        return {}
    return {
        target.id: _literal_type(node.value)
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _literal_type(value: ast.expr) -> type:
    try:
        return type(ast.literal_eval(value))
    except ValueError:
        return object


def _unknown(name: str, declared: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, declared, n=1)
    return f"Unknown parameter {name!r}" + (f": did you mean {close[0]!r}?" if close else "")


def _wrong_type(name: str, value: object, allowed: tuple[type | str, ...]) -> str:
    word = isinstance(value, str) and value in allowed
    if word or object in allowed or type(value) in allowed or (type(value) is int and float in allowed):
        return ""
    wanted = " or ".join(repr(one) if isinstance(one, str) else one.__name__ for one in allowed)
    hint = ": papermill passes text as it stands with -r" if str in allowed and isinstance(value, int | float) else ""
    hint = ": papermill passes lists and mappings with -y" if {list, dict} & set(allowed) else hint
    return f"Parameter {name!r} must be {wanted}, not {type(value).__name__} {value!r}{hint}"
