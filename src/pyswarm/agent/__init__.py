"""The agent: every node's side of the dispatcher.

Owns: the session with a manager, the local task database, one task manager per assigned task, the reports of their states.
Never: decides what should run where, imports `manager`, or talks to an engine other than through `executor`.
Started by the node once it has an identity; stopped with it.
"""
