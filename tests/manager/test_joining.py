"""How a manager asks others for membership, and which refusals it takes for an answer."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm.errors import FailedPrecondition, InvalidArgument, NotFound, SwarmError, Unavailable, Unknown
from pyswarm.manager.joining import LAST_PAUSE, REFUSALS, Joiner, passing
from pyswarm.raft.log import Joined, LostLeadership
from pyswarm.rpc.forward import NO_LEADER
from tests.rpc.pki import Authority, manager_security
from tests.support.clock import VirtualClock


class Scripted(Joiner):
    """Gets the given answers, one after the other, the last one for ever."""

    answers: list[SwarmError | Joined]
    asked = 0

    async def ask(self) -> Joined:
        """The next answer."""
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, SwarmError):
            raise answer
        return answer


def joiner(clock: VirtualClock, *answers: SwarmError | Joined) -> Scripted:
    """One that is told `answers`."""
    made = Scripted(manager_security(Authority()), lambda: "127.0.0.1:1", lambda: "127.0.0.1:2", clock)
    made.answers = list(answers)
    return made


@pytest.mark.parametrize("error", [Unavailable("nobody there"), Unknown(NO_LEADER), LostLeadership()])
async def test_waits_out_what_passes(clock: VirtualClock, error: SwarmError) -> None:
    """A cluster without leader is waited for, however long."""
    assert passing(error)
    asking = joiner(clock, *[error] * 50, Joined(7, (), ()))
    task = asyncio.create_task(asking.join())
    await clock.advance(60 * LAST_PAUSE)
    assert (await task).raft_id == 7


@pytest.mark.parametrize("error", [InvalidArgument("invalid address x in raft join request"), Unknown("could not connect"), NotFound("x")])
async def test_takes_no_for_an_answer(clock: VirtualClock, error: SwarmError) -> None:
    """What no waiting will change is said after a few attempts."""
    asking = joiner(clock, error)
    task = asyncio.create_task(asking.join())
    await clock.advance(REFUSALS * LAST_PAUSE)
    with pytest.raises(FailedPrecondition, match=f"^can't initialize raft node: {error.message}$"):
        await task
    assert asking.asked == REFUSALS
