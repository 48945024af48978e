"""A calm day of a small cluster, told hour by hour: everything ordinary happens once, and after each thing all is as it should be.

The seeds of the other simulations live for seconds in which everything goes wrong. Here time is long: what counts hours shows, and what is
done again and again while nothing happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.store import by
from tests.simulation.cluster import Cluster
from tests.simulation.nodes import SimNode
from tests.simulation.scenarios import Scenario
from tests.simulation.users import BAD, GOOD, TAG

Availability = api.NodeSpec.Availability
HOUR = 3600.0
CALM = Scenario(managers=1, workers=3, users=0, services=3, tick=100.0, rest=60.0, look=600.0)


class Day(Cluster):
    """See the module. `period` is that of the nodes' heartbeats, in seconds."""

    period = 600.0

    async def live(self) -> None:
        """From midnight to midnight."""
        self.containers.calm = self.calm = True
        async with asyncio.TaskGroup() as self._keepers:
            for manager in self.managers:
                self._keep(self._keep_manager(manager))
            for _ in range(self.scenario.workers):
                await self.add_worker()
            while not all(worker.process is not None for worker in self.workers):  # noqa: ASYNC110 - joining signals nobody
                await asyncio.sleep(1)
            for hour, event in self.events():
                await asyncio.sleep(max(0.0, hour * HOUR - self.loop.time()))
                self.trace("operator", "--- %s o'clock: %s ---", hour, event.__name__)
                await event()
                await self._settle(quiet=60.0)
            await asyncio.sleep(24 * HOUR - self.loop.time())
            await self._settle()
            for keeper in self._keepers_running:
                keeper.cancel()

    def events(self) -> list[tuple[float, Callable[[], Awaitable[None]]]]:
        """What happens, by the hour."""
        return [
            (0.1, self.slow_heartbeats),
            (1, self.services),
            (3, self.new_image),
            (5, self.more_replicas),
            (7, self.failing_container),
            (9, self.drain),
            (11, self.back_to_work),
            (12, self.node_fails),
            (15, self.node_returns),
            (17, self.bad_image),
            (19, self.manager_restarts),
            (21, self.fewer_replicas),
            (23, self.service_ends),
        ]

    # --- what the operator does

    async def slow_heartbeats(self) -> None:
        """Every ten minutes is enough."""
        cluster = next(iter((await self.operator.call("ListClusters", api.ListClustersRequest())).clusters))
        cluster.spec.dispatcher.heartbeat_period.CopyFrom(times.duration(self.period))
        request = api.UpdateClusterRequest(cluster_id=cluster.id, cluster_version=cluster.meta.version, spec=cluster.spec)
        await self.operator.call("UpdateCluster", request)

    def _spec(self, name: str, tag: str) -> api.ServiceSpec:
        spec = api.ServiceSpec(annotations=api.Annotations(name=name, labels={TAG: tag}))
        spec.task.container.image = f"{GOOD}:{tag}"
        spec.task.restart.condition = api.RestartPolicy.ANY
        spec.task.restart.delay.CopyFrom(times.duration(5.0))
        spec.update.monitor.CopyFrom(times.duration(5.0))
        spec.update.parallelism = 1
        return spec

    async def services(self) -> None:
        """One replicated, one global, one job."""
        web, everywhere, job = self._spec("s0", "1"), self._spec("s1", "1"), self._spec("s2", "1")
        web.replicated.replicas = 4
        getattr(everywhere, "global").SetInParent()
        job.replicated_job.max_concurrent, job.replicated_job.total_completions = 2, 5
        for spec in (web, everywhere, job):
            await self.operator.create(spec.annotations.name, spec)

    async def _change(self, name: str, tag: str, edit: Callable[[api.ServiceSpec], None]) -> None:
        found = await self.operator.read(name)
        assert found is not None
        spec = api.ServiceSpec()
        spec.CopyFrom(found.spec)
        spec.annotations.labels[TAG] = tag
        edit(spec)
        assert await self.operator.update(found, spec)

    async def new_image(self) -> None:
        """A rolling update, one task after the other with a minute in between."""

        def edit(spec: api.ServiceSpec) -> None:
            spec.task.container.image = f"{GOOD}:2"
            spec.update.delay.CopyFrom(times.duration(60.0))

        await self._change("s0", "2", edit)
        await asyncio.sleep(600)

    async def more_replicas(self) -> None:
        """From four to eight."""
        await self._change("s0", "3", lambda spec: setattr(spec.replicated, "replicas", 8))

    async def failing_container(self) -> None:
        """One of each machine ends by itself."""
        for worker in self.workers:
            task_id = next(i for i, c in sorted(worker.machine.containers.items()) if c.started_at is not None and c.exit_code is None)
            worker.machine.end(task_id, 1)
        await asyncio.sleep(30)

    async def _availability(self, worker: SimNode, wanted: Availability.ValueType) -> None:
        node = (await self.operator.call("GetNode", api.GetNodeRequest(node_id=worker.node_id))).node
        assert await self.operator.set_availability(node, wanted)

    async def drain(self) -> None:
        """The second node is emptied."""
        await self._availability(self.workers[1], Availability.DRAIN)

    async def back_to_work(self) -> None:
        """It may be used again."""
        await self._availability(self.workers[1], Availability.ACTIVE)

    async def node_fails(self) -> None:
        """The third machine loses power; its node is found to be down after some missed heartbeats, its tasks run elsewhere."""
        self._failed = self.workers.pop()
        self._failed.gone = True
        self._failed.crash_machine()
        self.retired.append(self._failed)
        await asyncio.sleep(4 * self.period + 60)

    async def node_returns(self) -> None:
        """It is switched on again, with its disk."""
        self.retired.remove(self._failed)
        self._failed.gone = False
        self.workers.append(self._failed)
        self._keep(self._keep_worker(self._failed))
        await asyncio.sleep(self.period + 60)

    async def bad_image(self) -> None:
        """An update that cannot work is rolled back by itself."""
        self.containers.calm = False

        def edit(spec: api.ServiceSpec) -> None:
            spec.task.container.image = f"{BAD}:4"
            spec.update.failure_action = api.UpdateConfig.ROLLBACK
            spec.update.delay.Clear()

        await self._change("s0", "4", edit)
        await asyncio.sleep(300)
        self.containers.calm = True
        assert self.leader is not None
        [service] = self.leader.store.services.find(by.name("s0"))
        assert service.update_status.state == api.UpdateStatus.ROLLBACK_COMPLETED
        assert service.spec.task.container.image == f"{GOOD}:2"

    async def manager_restarts(self) -> None:
        """SIGTERM; tasks and nodes hardly notice."""
        [manager] = self.managers
        assert manager.process is not None
        manager.process.stop()
        await asyncio.sleep(60)

    async def fewer_replicas(self) -> None:
        """From eight to two."""
        await self._change("s0", "5", lambda spec: setattr(spec.replicated, "replicas", 2))

    async def service_ends(self) -> None:
        """The global one is removed."""
        found = await self.operator.read("s1")
        assert found is not None
        await self.operator.remove(found)
        await asyncio.sleep(30)
