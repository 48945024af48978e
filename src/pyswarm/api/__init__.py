"""The vocabulary: the wire messages (`v1`) and the small facts that belong to them.

Owns: generated code (`swarmkit/`, `private/`, and the flat `v1`), identifiers, task states, names, times, defaults.
Never: touches the network, a file, the clock or a random source other than the system's secure one (`ids`).
Everyone imports it; it imports nobody.
"""
