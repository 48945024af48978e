"""Short pauses of the garbage collector."""

from __future__ import annotations

import gc

import pytest

from pyswarm import garbage


def test_what_makes_a_collection_long_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long full collection the survivors are set aside; after a short one they stay; `look_again` takes all back."""
    monkeypatch.setattr(garbage, "LONG_SECONDS", 1e9)
    garbage.keep_pauses_short()
    garbage.keep_pauses_short()
    assert sum(isinstance(c, garbage._Watch) for c in gc.callbacks) == 1
    before = gc.get_freeze_count()
    assert before > 0
    kept = [[i] for i in range(1000)]
    gc.collect()
    assert gc.get_freeze_count() < before + len(kept)
    monkeypatch.setattr(garbage, "LONG_SECONDS", 0.0)
    gc.collect()
    assert gc.get_freeze_count() >= before + len(kept)
    garbage.look_again()
    assert gc.get_freeze_count() == 0
