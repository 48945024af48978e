"""The node's side of cluster volumes (spec/scheduling-and-allocation, section 21; spec/dispatcher-agent-node, section 23).

Owns: `nodeplugin`, the node service of one storage plugin; `volumes`, which of the volumes that the manager assigned are mounted where on
this node, and the work of mounting and unmounting them.
Never: decides which volumes a node has (the manager does), or gives one away that a task here still uses.
Started by the worker, one per agent. After a restart the manager says again what is to be mounted or unmounted, and plugins take the same
call twice; what an earlier life left mounted that the manager does not know any more is in `records`, and is unmounted.
"""
