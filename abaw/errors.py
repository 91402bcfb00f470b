"""What goes wrong for a user's reason: one sentence that says what, the value met and the cure."""


class AbawError(ValueError):
    """Bad input or state that the user can mend; the command line prints it alone and exits with 1.

    The message names the file (and line) or option, the value met there, and what to do about it.
    """


class UsageError(AbawError):
    """A command or configuration that cannot mean anything; the command line exits with 2."""
