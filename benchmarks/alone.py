"""Run one function of the benchmarks in a fresh process: with the defaults of Python and torch, as its users run it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor


def alone(function: Callable, *values: object, **options: object) -> object:
    """What the function returns."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *values, **options).result()
