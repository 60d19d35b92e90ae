"""The one exception that stands for a mistake its reader can mend."""


class UserError(ValueError):
    """A mistake outside the code: a wrong path, a damaged file, a setting that does not exist.

    The message is one clear sentence with the offending path or value and the remedy. The command
    line prints it without a traceback and exits non-zero.
    """
