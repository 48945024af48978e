"""The commands, one module per family; each module's COMMAND is its group, imported when the family is named on the command line."""
