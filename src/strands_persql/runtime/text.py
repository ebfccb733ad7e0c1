"""Foreign text in logs and errors: on one line, escaped, and no longer than it helps."""

MAX_TEXT = 500
"""The most characters that a quoted text keeps."""


def one_line(text: str, limit: int = MAX_TEXT) -> str:
    r"""Return a text that is fit for a log's line or an error.

    Runs of white space become one space. Control characters, characters that change the
    direction of writing and lone surrogates are escaped, so that nobody's text forges a line or
    reorders one.

    Args:
        text: What somebody else has written.
        limit: The most characters to keep.

    Examples:
        >>> one_line("ok\nERROR \x1b[2J\u202eforged")
        'ok ERROR \\x1b[2J\\u202eforged'
    """
    # Twice the limit is more than enough to fill it, whatever is dropped as white space.
    line = " ".join(text[: 2 * limit].split())
    if not line.isprintable():
        line = "".join(map(_escaped, line))
    return line[:limit]


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
