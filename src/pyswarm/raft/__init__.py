"""The replicated log: one narrow door to PySyncObj (design rule 7).

Owns: proposing, applying in order, snapshots, the journal on disk and its encryption, membership, leadership.
Never: looks into what it replicates, or lets anything of pysyncobj (or a pickle) out. Nobody else imports pysyncobj.
Started by the manager; the store is its state machine.
"""
