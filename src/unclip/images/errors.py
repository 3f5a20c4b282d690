"""Exceptions and warnings of pictures."""


class PictureError(ValueError):
    """A picture that cannot be used; the message says why, in one line, and what is accepted."""


class PictureWarning(UserWarning):
    """Something of a picture that was passed over, such as a damaged colour profile."""
