"""The exception for errors that the user can correct."""

LONGEST = 1500  # characters in a message


class UserError(ValueError):
    """An error outside the code: a wrong path, a damaged file, an unknown setting.

    The message is one sentence with the offending path or value and the remedy. The command line
    prints it without a traceback and exits with a non-zero code.

    The message may quote a damaged or hostile file: control characters are escaped for the
    terminal, and a very long message is shortened in the middle.
    """

    def __str__(self) -> str:
        text = "".join(
            char if char.isprintable() or char == "\n" else ascii(char)[1:-1]
            for char in super().__str__()
        )
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
        return text
