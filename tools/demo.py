"""The README's story with real processes: three nodes on loopback, every command printed before its output.

`make demo` runs it. Tasks run in Docker when an engine answers and the images can be had, else as plain processes; it says which. All it
starts lives under one temporary directory and is gone at the end. Exit status 0 and a last line `demo: ok`, or the reason of the failure.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
import time

import docker
import docker.errors

from tools.cluster import Cluster, StoryError, until
from tools.engine import import_images

IMAGES = ("redis:3.0.5", "redis:3.0.6", "redis:3.0.7")


def tell(text: str) -> None:
    """A command, or what it printed."""
    print(text, flush=True)


def say(text: str) -> None:
    """One line of the narrator."""
    print(f"\n# {text}", flush=True)


class Engine:
    """The Docker Engine of this machine, if one answers, and what the demo put into it."""

    def __init__(self) -> None:
        self.address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        self.client: docker.DockerClient | None = None
        self._made: list[str] = []

    def reason_against(self) -> str:
        """Why tasks cannot run in Docker; empty when they can."""
        try:
            client = docker.DockerClient(base_url=self.address, timeout=20)
            client.ping()
        except (docker.errors.DockerException, OSError):
            return f"no Docker Engine answers at {self.address}"
        self.client = client
        for image in IMAGES:
            if not self._obtain(client, image):
                return f"the engine at {self.address} has no image {image} and cannot pull it"
        return ""

    def _obtain(self, client: docker.DockerClient, image: str) -> bool:
        with contextlib.suppress(docker.errors.ImageNotFound):
            client.images.get(image)
            return True
        try:
            client.images.pull(image)
        except (docker.errors.DockerException, OSError):
            return self._stand_in(image)
        self._made.append(image)
        return True

    def _stand_in(self, image: str) -> bool:
        """Without a registry, an image that sleeps does: the story is about the orchestrator."""
        if shutil.which("busybox") is None:
            return False
        import_images(self.address, [image])
        self._made.append(image)
        print(f"(no registry answers: {image} is a stand-in that sleeps, and is removed again)")
        return True

    def clean(self, node_ids: set[str]) -> None:
        """Remove what the demo made: containers of its nodes, images it pulled or imported."""
        if self.client is None:
            return
        for node_id in node_ids:
            for container in self.client.containers.list(all=True, filters={"label": f"com.docker.swarm.node.id={node_id}"}):
                container.remove(force=True, v=True)
        for image in self._made:
            self.client.images.remove(image, force=True)


def story(cluster: Cluster, create: list[str]) -> None:
    """What the README promises, step by step."""
    form(cluster)
    serve(cluster, create)
    update(cluster)
    maintain(cluster)
    lose_a_worker(cluster)
    lose_the_manager(cluster)
    say("the service goes, and its tasks with it")
    cluster.show("service", "rm", "redis")
    until("all tasks are gone", lambda: not cluster.rows("task", "ls", "--all"))
    cluster.show("task", "ls", "--all")


def form(cluster: Cluster) -> None:
    """One manager, two workers."""
    say("a first manager founds the cluster")
    cluster.found()
    print(f"$ export SWARM_SOCKET={cluster.socket}")
    cluster.show("cluster", "inspect", "default")
    say("two workers join with nothing but an address and a token")
    token = cluster.token()
    for name in ("node-2", "node-3"):
        cluster.join(name, token)
    cluster.await_ready(3)
    cluster.show("node", "ls")


def serve(cluster: Cluster, create: list[str]) -> None:
    """A service comes to life and grows."""
    say("a service")
    cluster.show("service", "create", "--name", "redis", "--image", IMAGES[0], *create)
    until("it runs", lambda: cluster.replicas() == "1/1")
    cluster.show("service", "ls")
    cluster.show("service", "inspect", "redis")
    say("six of it")
    cluster.show("service", "update", "redis", "--replicas", "6")
    until("six run", lambda: cluster.replicas() == "6/6")
    cluster.show("service", "ls")


def update(cluster: Cluster) -> None:
    """New images, all at once and in steps."""
    say("a new image, all at once")
    cluster.show("service", "update", "redis", "--image", IMAGES[1])
    until("the update is COMPLETED", cluster.updated)
    cluster.show("service", "inspect", "redis")
    say("another, two tasks at a time")
    cluster.show("service", "update", "redis", "--image", IMAGES[2], "--update-parallelism", "2", "--update-delay", "2s")
    until("the update is COMPLETED", cluster.updated)
    cluster.show("service", "inspect", "redis")


def maintain(cluster: Cluster) -> None:
    """Draining, pausing, looking at tasks."""
    say("node-1 goes into maintenance: its tasks move")
    cluster.show("node", "drain", "node-1")
    until("nothing runs on node-1", lambda: cluster.replicas() == "6/6" and "node-1" not in cluster.places().values())
    cluster.show("node", "ls")
    cluster.show("task", "ls")
    say("and comes back; pausing takes no tasks away")
    cluster.show("node", "activate", "node-1")
    cluster.show("node", "pause", "node-1")
    cluster.show("node", "ls")
    cluster.show("node", "activate", "node-1")
    cluster.show("task", "inspect", next(iter(cluster.places())))


def lose_a_worker(cluster: Cluster) -> None:
    """kill -9 of a worker's daemon, and its return."""
    say("a worker's daemon dies (heartbeats made quick, so that nobody has to wait)")
    cluster.show("cluster", "update", "default", "--heartbeatperiod", "1s")
    before = cluster.nodes()["node-2"][0]
    time.sleep(6)  # the old heartbeat period is still in the agents' hands for one beat
    cluster.kill("node-2")
    until("node-2 is DOWN", lambda: cluster.nodes()["node-2"][3] == "DOWN")
    until("its tasks run elsewhere", lambda: cluster.replicas() == "6/6" and "node-2" not in cluster.places().values())
    cluster.show("node", "ls")
    cluster.show("task", "ls")
    say("it comes back from its directory, as the node it was")
    cluster.start("node-2")
    until("node-2 is READY", lambda: cluster.check_alive() or cluster.nodes()["node-2"][3] == "READY")
    if cluster.nodes()["node-2"][0] != before:
        raise StoryError("node-2 lost its identity")
    cluster.show("node", "ls")


def lose_the_manager(cluster: Cluster) -> None:
    """kill -9 of the only manager, and a restart from its directory."""
    say("the only manager dies and is started again: nothing acknowledged is lost, running tasks are not disturbed")
    places = cluster.places()
    cluster.kill("node-1")
    cluster.start("node-1")
    cluster.await_manager()
    cluster.await_ready(3)
    cluster.show("service", "ls")
    until("the same tasks run", lambda: cluster.places() == places)
    cluster.show("task", "ls")


def main() -> int:
    """Set up, tell the story, clean up."""
    began = time.monotonic()
    root = pathlib.Path(tempfile.mkdtemp(prefix="pyswarm-demo-"))
    engine = Engine()
    reason = engine.reason_against()
    if reason:
        print(f"{reason}: tasks run as plain processes (--executor process), which need a command")
        flags, create = ["--executor", "process"], ["--command", "sleep", "--args", "3600"]
    else:
        print(f"tasks run in Docker, engine {engine.address}")
        flags, create = ["--engine-addr", engine.address], []
    cluster = Cluster(root, flags, tell)
    failure = ""
    try:
        story(cluster, create)
    except (StoryError, OSError, docker.errors.DockerException) as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "interrupted"
    finally:
        cluster.stop()
        engine.clean(cluster.node_ids)
    if failure:
        for log in sorted(root.glob("*.log")):
            print(f"\n--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")
        shutil.rmtree(root, ignore_errors=True)
        print(f"demo: failed: {failure}")
        return 1
    shutil.rmtree(root, ignore_errors=True)
    print(f"\n# took {time.monotonic() - began:.0f} s\ndemo: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
