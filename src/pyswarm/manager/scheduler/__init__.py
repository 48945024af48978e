"""The scheduler: binds PENDING tasks to nodes, once each (spec/scheduling-and-allocation, sections 3 to 9).

Owns: the mirror of nodes and what runs on them, the filters with their explanations, the spread over preferences and nodes.
Never: revises an assignment, starts or stops anything, or keeps a fact that the store does not hold.
Started by the manager on the leader, as a `Loop` under the shared driver.
"""
