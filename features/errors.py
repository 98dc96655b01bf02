"""The errors that are a user's to mend, apart from those that are ours."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class HypoxiaError(Exception):
    """Base of every error that this system raises on purpose."""


class InputError(HypoxiaError):
    """The user's study, data or request cannot be used; the message says what, and the way out.

    The command line shows the message and ends with exit code 2. Any other exception is our fault and is never caught.
    """


class SchemaMismatchError(InputError):
    """Rows do not have the features that a model was trained on.

    Safe to send to a client: it names features, never their values.

    Parameters
    ----------
    faults : list of tuple of str
        One ``(feature, what is wrong)`` per fault.
    """

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        self.faults = faults
        shown = "; ".join(f"{name!r} {fault}" for name, fault in faults[:5])
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        super().__init__(f"The row does not match the model's features: {shown}{more}.")


class BundleError(HypoxiaError):
    """A stored model is incomplete, changed, or holds something that it must not; nothing of it was run."""


class LeakError(HypoxiaError):
    """A held-out patient was about to influence what is learnt; the run stops."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Nearest known name as a clause for an error message, or nothing.

    Examples
    --------
    >>> did_you_mean("Tagret", ["Target", "ID"])
    " (did you mean 'Target'?)"
    """
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
