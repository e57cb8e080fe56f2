"""The one exception that a command line turns into one line and exit code 2."""


class UserError(Exception):
    """A mistake of the user's: the message says what was wrong and what to do, in one line."""


def is_failure(error: BaseException) -> bool:
    """Tell a library's failure from a signal or an exit: what those in Rust raise where they panic, as over a damaged
    file, is no Exception.
    """
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"
