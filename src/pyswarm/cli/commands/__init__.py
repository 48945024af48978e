"""The commands, one module per family: its COMMAND is the family's group, imported when the family is named on the command line.

Owns: which flags and arguments a command has, and what it asks of the manager. Never: decides what the manager decides, or lays out text
(that is show/). Run by the command tree in ctl.py.
"""
