"""Keeping the garbage collector's pauses short in a process that holds a large state.

A full collection looks at every object that could be part of a cycle. A hundred thousand stored tasks are some three hundred thousand of
those, so it stops everything for a third of a second and more, and would do so again and again as the store grows; what is stored never
forms cycles, and goes when the last reference does. So whatever survives a collection that took too long is not looked at again
(`gc.freeze`), and collections come sooner, so that each has less to look at. What it costs: cycles that were alive at such a moment and end
later are not found until `look_again`. Processes with a small state, where most objects come from connections and calls, never get there.
"""

from __future__ import annotations

import gc
import time

LONG_SECONDS = 0.015
"""A full collection that used the processor for longer is too long."""


OLDEST = 2
"""The generation whose collection is a full one."""

THRESHOLDS = 700, 10, 3
"""Python's own, but a full collection after every third of the one before instead of every tenth."""


class _Watch:
    """Measures full collections."""

    def __init__(self) -> None:
        self._begun = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """See gc.callbacks."""
        if info["generation"] != OLDEST:
            return
        if phase == "start":
            self._begun = time.thread_time()
        elif time.thread_time() - self._begun > LONG_SECONDS:
            gc.freeze()


def keep_pauses_short() -> None:
    """For the whole process, once: set aside what the program itself consists of, and from now on what makes collections long."""
    if not any(isinstance(callback, _Watch) for callback in gc.callbacks):
        gc.collect()
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(_Watch())


def look_again() -> None:
    """The large state is gone: what it held together is found by the next collection, which may be a long one."""
    gc.unfreeze()
