"""Signing requests, made once for all simulations."""

from __future__ import annotations

import functools

from pyswarm.ca import csr


@functools.cache
def request(number: int) -> bytes:
    """The request of a machine."""
    del number
    return csr.generate()[0]
