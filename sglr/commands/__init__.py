"""The commands of `sglr`, a file for each heading of its help.

Libraries are imported inside the commands, so that `sglr --help` answers at once.
"""
