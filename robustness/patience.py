"""Calls into foreign code that may never come back."""

from __future__ import annotations

import multiprocessing
from functools import partial


def call_until_it_returns(work: partial[None], *, seconds: float = 60, times: int = 4) -> None:
    """Call a function in a process of its own, again where it hangs.

    Args:
        work: A function of a module and its arguments, which are pickled; what it makes must bear being made again.
        seconds: How long a call is waited for.
        times: Calls until it is given up.

    Raises:
        TimeoutError: No call came back.
        RuntimeError: A call failed; its traceback is on the error output.
    """
    for _ in range(times):
        process = multiprocessing.get_context("spawn").Process(target=work, daemon=True)
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            continue
        if process.exitcode != 0:
            raise RuntimeError(f"{work.func.__name__} ended with {process.exitcode} in its process")
        return
    raise TimeoutError(f"{work.func.__name__} did not come back within {seconds:g} s, {times} times")
