"""Errors that a user can mend."""

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


class UserError(Exception):
    """A wrong file, key or value. The message names it and says what to do; tools print it without a traceback.

    Attributes:
        status: What a tool then ends with.
        is_shared: Every process of a distributed run raises it, the first one perhaps much later.
    """

    status = 2
    is_shared = False


class InputError(UserError, ValueError):
    """An input that a network cannot take."""


class WeightsError(UserError):
    """A weights file that cannot be read, or does not fit the model."""
