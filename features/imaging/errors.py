"""The fault of one case, which the other cases outlive."""

from __future__ import annotations

from features.errors import InputError


class ImageError(InputError):
    """An image or a mask cannot be used; the sentence names the file, the reason and the way out.

    Parameters
    ----------
    message : str
        One sentence, free of anything that identifies a patient.
    file : str, optional
        File at fault, as the user wrote it.

    Examples
    --------
    >>> ImageError("a.nii.gz is empty (0 bytes).", file="a.nii.gz").file
    'a.nii.gz'
    """

    def __init__(self, message: str, *, file: str | None = None) -> None:
        super().__init__(message)
        self.file = file
