"""The programs: `pyswarmd` (daemon.py) and `pyswarmctl` (ctl.py).

Owns: command lines, help texts, exit statuses, and what is printed. pyswarmctl is a client of the Control API and nothing more: `commands/`
fetches, `show/` turns messages into text without touching anything, `flags`, `units`, `columns` and `service_spec` decide and are pure.
Never: is imported by any other room. Nothing heavy is imported before it is needed; pyswarmctl has to be up in a quarter of a second.
"""
