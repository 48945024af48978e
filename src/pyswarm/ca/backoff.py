"""Waiting longer after each failure, at random, so that many nodes do not come back together (spec/ca-and-security, section 1)."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """`base` and `factor` shape the growth, `limit` caps it; all in seconds."""

    base: float
    factor: float
    limit: float

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after so many failures in a row; none after none."""
        if failures <= 0:
            return 0.0
        # The exponent is capped because the limit rules long before, and floats end at 2**1023.
        return rng.uniform(0.0, min(self.limit, self.base + self.factor * 2.0 ** min(failures - 1, 64)))
