"""The one exception that stands for a mistake its reader can mend."""

LONGEST = 1500  # characters of a message


class UserError(ValueError):
    """A mistake outside the code: a wrong path, a damaged file, a setting that does not exist.

    The message is one clear sentence with the offending path or value and the remedy. The command
    line prints it without a traceback and exits non-zero.

    What it quotes may come from a damaged or hostile file: control characters are escaped, so that
    none reaches a terminal, and what is very long loses its middle.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
        return "".join(
            char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
        )
