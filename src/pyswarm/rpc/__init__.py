"""The edge: TLS, servers, channels, who is calling, who may call, and forwarding to the leader.

Owns: every socket between programs, the mapping between exceptions and gRPC statuses, the table of roles.
Never: decides anything about tasks, nodes or certificates' contents; service classes get messages and a `Caller`, no gRPC objects.
Started by the manager (servers) and by whoever needs a channel.
"""
