"""Exception types that callers tell apart: a bad request, a model that lacks a part, a damaged model, numbers
that are not finite, a cancelled call.

All but `Cancelled` are `ValueError`s. Every message names the value that was wrong and what to do instead.
"""


class RequestError(ValueError):
    """A request that no model can run: a value of another type, out of range, or in contradiction to another (HTTP 400)."""


class Unsupported(ValueError):
    """A request that this model cannot run: it lacks a part, or the part lacks a capability."""


class ModelError(ValueError):
    """A model folder that cannot be used; the message names the file and the remedy."""


class NonFinite(ModelError, ArithmeticError):
    """A network gave NaN or infinite numbers, which are no picture; the message names the part and the stage."""


class Cancelled(Exception):
    """Raised by a progress callback to end a call; pictures that were finished before remain."""
