"""The kind of this process."""

is_command = False
"""Whether this is the command `muse`: its entry point sets it before it imports the other modules."""
