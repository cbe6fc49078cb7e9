"""The exceptions that the commands turn into a message on standard error and an exit code."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can fix: the message says what is wrong, where, and what to do."""

    exit_code = 2


class PeerError(UserError):
    """Another process of the run never started or is gone; starting the run again may help."""

    exit_code = 69  # sysexits.h: EX_UNAVAILABLE


def shortened(text: str, most: int = 200) -> str:
    """Returns a text for a message: the middle of a long one is left out."""
    return text if len(text) <= most else f'{text[: most // 2]}...{text[-most // 4 :]}'


def shown(value: object) -> str:
    """Returns a value as Python writes it, shortened, for a message."""
    try:
        return shortened(repr(value))
    except ValueError:  # Python writes whole numbers of up to 4,300 digits
        return 'a number of thousands of digits'
    except Exception:  # a value that contains itself, or of a class whose own method fails
        return f'a value of type {type(value).__name__}'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean "X"?' for the closest match in `known`, or '' if none is close."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{matches[0]}"?' if matches else ''
