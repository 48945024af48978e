"""What may befall a minority of managers, and how each of it ends; as commands to a cluster on hosts."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tools.cluster import StoryError
from tools.hosts import HostedCluster

DISK_FULL = ("No space left on device", "disk is full")
REMEDY = "free the disk"
END_SECONDS = 20.0
FLAPS, FLAP_SECONDS = 4, 0.4


class Fault(Protocol):
    """Something that befalls managers, a minority of them. Both calls block for a moment."""

    def begin(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """It happens."""
        ...

    def end(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """It is over; the managers run, or are starting."""
        ...


class Killed:
    """kill -9, and a start afterwards."""

    def begin(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        for name in names:
            cluster.kill(name)

    def end(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        for name in names:
            cluster.start(name)


class Paused:
    """SIGSTOP, and SIGCONT afterwards."""

    def begin(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        for name in names:
            cluster.signal(name, signal.SIGSTOP)

    def end(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        for name in names:
            cluster.signal(name, signal.SIGCONT)


@dataclass(frozen=True)
class CutOff:
    """What they send to the others, or what the others send to them, or both is lost on the way; among themselves nothing is."""

    hears: bool = False
    heard: bool = False

    def begin(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        cluster.hosts.isolate(*names, hears=self.hears, heard=self.heard)

    def end(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        cluster.hosts.heal()


class Severed:
    """Each loses sight of one of the others, and is lost to its sight; who sees both sees no fault."""

    def begin(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        for name, other in zip(names, cluster.hosts.others(*names), strict=False):
            cluster.hosts.cut([name], [other])
            cluster.hosts.cut([other], [name])

    def end(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        cluster.hosts.heal()


class Flapping:
    """Cut off and back again, so fast that nobody is sure."""

    def begin(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        for _ in range(FLAPS):
            cluster.hosts.isolate(*names)
            time.sleep(FLAP_SECONDS)
            cluster.hosts.heal()
            time.sleep(FLAP_SECONDS)

    def end(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""


class Terminated:
    """SIGTERM, and a start afterwards."""

    def begin(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        for name in names:
            cluster.terminate(name)

    def end(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        for name in names:
            cluster.start(name)


class DiskFull:
    """No room on their disks; they end with a sentence, and are started when there is room again."""

    def begin(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault."""
        for name in names:
            cluster.hosts.fill(name)

    def end(self, cluster: HostedCluster, names: Sequence[str]) -> None:
        """See Fault. Raises StoryError when a manager goes on, or ends without saying why."""
        for name in names:
            ended_for_want_of_room(cluster, name)
            cluster.hosts.free(name)
            cluster.start(name)


def ended_for_want_of_room(cluster: HostedCluster, name: str) -> str:
    """Wait until the manager has ended; its last line, which names the file and the remedy. Raises StoryError."""
    try:
        status = cluster.daemons[name].wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        raise StoryError(f"{name} goes on with a full disk") from None
    del cluster.daemons[name]
    line = (cluster.root / f"{name}.log").read_text().strip().splitlines()[-1]
    said = all(words in line for words in ("Error: ", str(cluster.root / name), REMEDY)) and any(words in line for words in DISK_FULL)
    if status != 1 or not said or "unexpected" in line:
        raise StoryError(f"{name} ended with status {status} for want of room: {line}")
    return line


FAULTS: dict[str, Fault] = {
    "killed": Killed(),
    "paused": Paused(),
    "cut off": CutOff(),
    "deaf": CutOff(heard=True),
    "mute": CutOff(hears=True),
    "severed": Severed(),
    "flapping": Flapping(),
    "terminated": Terminated(),
    "disk full": DiskFull(),
}


def shuffled(kinds: Sequence[str], chance: random.Random) -> Iterator[str]:
    """Kinds of faults without end, each as often as any other."""
    while True:
        yield from chance.sample(sorted(kinds), len(kinds))
