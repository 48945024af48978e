"""The leader's side of cluster volumes (spec/scheduling-and-allocation, sections 18 to 21).

Owns: `states`, what a volume needs next and what each answer of a plugin makes of it (pure); `requests`, what plugins are asked (pure);
`controller`, one plugin's controller service; `volumemanager`, the loop that carries it out; `release`, which takes volumes back from nodes
where nobody uses them any more.
Never: chooses volumes for tasks (the scheduler does), or mounts anything (the nodes do).
Started by the manager on the leader. All that it knows is in the store, and every call may be made twice, so a new leader just goes on.
"""

from pyswarm.manager.csi.release import VolumeRelease
from pyswarm.manager.csi.volumemanager import VolumeManager

__all__ = ["VolumeManager", "VolumeRelease"]
