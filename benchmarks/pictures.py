"""The README's pictures: figures of the notebooks that `make run` has just run on the sample, in docs/."""

from __future__ import annotations

import base64

import nbformat

from helpers import session

FIGURES = {"02-ModelTraining": "accuracies", "03-ModelInterpretability": "panels"}  # the cells that draw them


def main() -> None:
    """Write the last figure of each of these cells to docs/, under the name of the cell."""
    for name, drawing in FIGURES.items():
        notebook = nbformat.read(session.root() / "report" / f"{name}.ipynb", as_version=4)
        (cell,) = [cell for cell in notebook.cells if cell.id == drawing]
        *_, last = (output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
        (session.root() / "docs" / f"{drawing}.png").write_bytes(base64.b64decode(last))


if __name__ == "__main__":
    main()
