"""The one exception that a command line turns into one line and exit code 2."""


class UserError(Exception):
    """A mistake of the user's: the message says what was wrong and what to do, in one line."""
