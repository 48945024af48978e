"""What goes wrong, and what people do in the middle of it."""

from __future__ import annotations

from tests.simulation.raft.cluster import Cluster, Manager


def live(cluster: Cluster, steps: int) -> None:
    """Trouble for so many steps, then peace, then the final judgement."""
    for _ in range(steps):
        misfortune(cluster)
        politics(cluster)
        cluster.step()
    cluster.calm()
    cluster.conclude()


def misfortune(cluster: Cluster) -> None:
    """Something may break, or be repaired."""
    chance, weather = cluster.chance, cluster.weather
    _network(cluster)
    ids = list(cluster.managers)
    if chance.random() < weather.crash:
        _crash(cluster, cluster.managers[chance.choice(ids)])
    if weather.freeze and chance.random() < weather.freeze:
        cluster.freeze(cluster.managers[_somebody(cluster)], chance.uniform(1, 40))
    if weather.clock and chance.random() < weather.clock:
        cluster.managers[chance.choice(ids)].ahead += chance.choice((1, 10, 3600))
    if weather.slow_disk and chance.random() < weather.slow_disk:
        cluster.managers[chance.choice(ids)].slow_until = cluster.now + chance.uniform(5, 60)
    if weather.full_disk and chance.random() < weather.full_disk:
        unlucky = cluster.managers[chance.choice(ids)]
        disk = chance.choice((unlucky.disks.memory_log, unlucky.disks.memory_snapshots))
        disk.full_at = disk.calls + chance.randint(1, 4)


def _network(cluster: Cluster) -> None:
    chance, weather, ids = cluster.chance, cluster.weather, list(cluster.managers)
    if len(ids) > 1:
        a, b = chance.sample(ids, 2)
        if chance.random() < weather.cut:
            cluster.links.cut((a, b))
            cluster.links.cut((b, a))
        if weather.one_way and chance.random() < weather.one_way:
            cluster.links.cut((a, b))
        if chance.random() < weather.reset:
            cluster.links.fall((a, b))
            if chance.random() < 0.5:
                cluster.links.fall((b, a))
    if chance.random() < weather.isolate:
        alone, ways = _somebody(cluster), chance.choice(("both", "in", "out") if weather.one_way else ("both",))
        for other in ids:
            if other != alone and ways != "in":
                cluster.links.cut((alone, other))
            if other != alone and ways != "out":
                cluster.links.cut((other, alone))
    if cluster.links.cuts and chance.random() < weather.heal:
        cluster.links.heal()


def _somebody(cluster: Cluster) -> int:
    """The leader half of the time: it is the one who must not believe that nothing has changed."""
    leader = cluster.leader()
    return leader.raft_id if leader is not None and cluster.chance.random() < 0.5 else cluster.chance.choice(list(cluster.managers))


def _crash(cluster: Cluster, unlucky: Manager) -> None:
    if unlucky.replica is None:
        return
    if cluster.chance.random() < 0.5:
        cluster.crash(unlucky, cluster.chance.choice((0.0, cluster.chance.uniform(1, 60))))
    else:
        disk = cluster.chance.choice([unlucky.disks.memory_log, unlucky.disks.memory_snapshots])
        disk.die_at = disk.calls + cluster.chance.randint(1, 4)


def politics(cluster: Cluster) -> None:
    """Managers come, go, move, hand over, and change their keys."""
    leader, weather, chance = cluster.leader(), cluster.weather, cluster.chance
    if weather.rekey and chance.random() < weather.rekey:
        cluster.rekey(cluster.managers[chance.choice(list(cluster.managers))])
    if leader is None:
        return
    if chance.random() < weather.join and len(cluster.managers) < len(cluster.founders) + 6:
        cluster.join()
    if weather.join and chance.random() < 0.05:
        cluster.admit(leader)
    if chance.random() < weather.remove and len(leader.membership.members) > 2:
        cluster.remove(leader, chance.choice(sorted(leader.membership.members)))
    if chance.random() < weather.transfer:
        cluster.hand_over(leader)
    if chance.random() < weather.move:
        moved = cluster.managers[chance.choice(sorted(leader.membership.members))]
        moved.addr = f"addr-{chance.getrandbits(20):x}"
        if moved.replica is not None:
            moved.replica.advertise(moved.addr)
            moved.awake = True
