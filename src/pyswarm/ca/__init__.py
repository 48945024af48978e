"""The certificate authority and everything that is secret about a node.

Owns: root CA, certificates and keys (in memory and on disk), join tokens, unlock keys, the CA and NodeCA services, the leader's signer and
the node's renewal. Must never: write a root key to disk, log a key or a token, trust a subject that a CSR brings along.
Started by: the node process (bootstrap, renewal) and the manager on leadership (signer). Those who need the node's identity hold a
`credentials.SecurityConfig` and subscribe to it.
"""
