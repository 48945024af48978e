"""Values that hold where a spec is silent. Seconds unless said otherwise."""

CLUSTER_NAME = "default"
HEARTBEAT_PERIOD = 5.0
TASK_HISTORY_LIMIT = 5
NODE_CERT_EXPIRY = 90 * 24 * 3600.0
RESTART_DELAY = 5.0
UPDATE_MONITOR = 5.0
STOP_GRACE_PERIOD = 10.0
SNAPSHOT_INTERVAL = 10_000
LOG_ENTRIES_FOR_SLOW_FOLLOWERS = 500
MAX_TRANSACTION_BYTES = 1_572_864
MAX_TRANSACTION_CHANGES = 200
BATCH_BYTES = MAX_TRANSACTION_BYTES * 3 // 4
PREDEFINED_LABEL = "com.docker.swarm.predefined"
"""Marks the networks that every node has of its own."""
