"""Storage plugins: which there are, how they are asked, and what manager and agent have in common about them.

Owns: the list of plugins that the daemon was given, connections to their Unix sockets (Container Storage Interface, `csi.v1`), how an
access mode reads there, and the rule by which failed work on volumes is tried again.
Never: decides anything about volumes, or logs what a secret holds. The manager uses it for controllers, the agent for nodes.
"""
