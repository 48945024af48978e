"""The manager: what a node does besides running tasks when its certificate says manager.

Owns: the replicated store, the control loops, the services of the control and remote APIs, and the order in which they start and stop.
Never: runs a container, or keeps state of its own that the store does not hold or cannot rebuild.
Started by the node when its role is manager; `manager.py` is the composition root.
"""
