"""What the process executor makes of a spec."""

from __future__ import annotations

import signal

import pytest

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.process.output import split_frames
from pyswarm.agent.executor.process.recipe import parse_signal, recipe
from pyswarm.agent.executor.process.shim import FRAME
from pyswarm.api import v1 as api
from tests.support.engine import container_task


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", int(signal.SIGRTMIN) + 3), ("SIGWINCH", 28)],
)
def test_signals(text: str, number: int) -> None:
    """Signals go by name, short name or number."""
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "SIG", "SIG_DFL", "999", "TERM+1", "RTMIN+x", "_IGN"])
def test_no_signals(text: str) -> None:
    """Anything else is refused with its name."""
    with pytest.raises(ExecutorError, match="is no signal of this machine"):
        parse_signal(text)


def test_recipe() -> None:
    """Command and arguments make the argument list; the spec's environment wins over the default one; entries without = are dropped."""
    task = container_task("sleep", args=["1"])
    task.spec.container.env.extend(["PATH=/x", "A=1", "A=2", "LONELY", "=odd"])
    task.spec.container.hostname = "h{{.Task.Slot}}"
    made = recipe(task, api.NodeDescription(hostname="node"))
    assert made.argv == ("sleep", "1")
    assert made.env == {"PATH": "/x", "HOSTNAME": "h1", "A": "2"}
    assert made.stop_signal == signal.SIGTERM


def test_frames() -> None:
    """Frames are cut off a block; an incomplete one at its end is left for the next."""
    data = b"".join(FRAME.pack(number, 1, len(text)) + text for number, text in enumerate((b"a\n", b"", b"bc")))
    for cut in range(len(data)):
        lines, rest = split_frames(data[:cut])
        more, nothing = split_frames(rest + data[cut:])
        assert [(line.at, line.data) for line in lines + more] == [(0, b"a\n"), (1, b""), (2, b"bc")]
        assert nothing == b""
