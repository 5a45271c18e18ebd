"""What a user can mend is said in a sentence, without a traceback."""


class UserError(Exception):
    """A mistake that the user can mend; the command line prints it without a traceback and exits with 2."""


class RunError(UserError):
    """A run that cannot be read or must not be written."""


class LostError(UserError):
    """A recording that stopped while its training went on; what was committed before is safe."""


def first_line(error: Exception) -> str:
    """The first line of what an error says; libraries add whole pages."""
    return str(error).partition("\n")[0]
