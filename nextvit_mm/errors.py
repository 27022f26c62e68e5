"""Errors that a user can mend."""


class UserError(Exception):
    """A wrong file, key or value. The message names it and says what to do; tools print it without a traceback.

    Attributes:
        status: What a tool then ends with.
    """

    status = 2


class WeightsError(UserError):
    """A weights file that cannot be read, or does not fit the model."""
