"""Errors that a user can cause: one clear line, no traceback."""


class TDNError(ValueError):
    """A user's mistake: the message names what was found, what was expected and how to fix it."""


class UsageError(TDNError):
    """A wrong command line or configuration; command lines end with exit code 2."""
