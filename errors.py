"""The exceptions that the commands turn into a sentence and an exit code."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user; the message says what is wrong, where, and what to do."""

    exit_code = 2


class PeerError(UserError):
    """Another process of the run did not start, hangs or is gone; a new start may succeed."""

    exit_code = 69  # sysexits.h: EX_UNAVAILABLE


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean X?' for the most similar of `known`, or '' if none is similar."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ''
