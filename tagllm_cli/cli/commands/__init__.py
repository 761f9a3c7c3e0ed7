"""The commands, one function each, without logic: options in, a room below called, its result shown.

Rooms are imported inside the commands, so that `--help` answers at once.
"""
