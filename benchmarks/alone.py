"""Run one function of the benchmarks in a fresh process: with the defaults of Python and torch, as its users run it."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path


def alone(name: str, *values: object, **options: object) -> object:
    """What the function of that name ("peers.tutorial") returns."""
    with tempfile.TemporaryDirectory() as folder:
        call = Path(folder) / "call"
        call.write_bytes(pickle.dumps((name, values, options)))
        subprocess.run([sys.executable, __file__, str(call)], check=True)
        return pickle.loads(call.read_bytes())


def main() -> None:
    """Read a call, and write in its place what it returned."""
    call = Path(sys.argv[1])
    name, values, options = pickle.loads(call.read_bytes())
    module, _, function = name.rpartition(".")
    call.write_bytes(pickle.dumps(getattr(importlib.import_module(module), function)(*values, **options)))


if __name__ == "__main__":
    main()
