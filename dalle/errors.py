"""The errors a caller of `dalle` may want to catch."""

from __future__ import annotations


class DalleError(Exception):
    """Base of every error this package raises on purpose, apart from ValueError and TypeError."""


class ModelFormatError(DalleError):
    """A model folder is missing, incomplete, damaged or not one of ours."""


class ClipUnavailableError(DalleError):
    """The weights of a CLIP are neither on this machine nor to be had."""


class DataError(DalleError):
    """A data set cannot be read at all, or too many of its items are bad."""


class FontError(DalleError):
    """No usable colour emoji font was found."""


class TrainingError(DalleError):
    """Training had to stop: a loss not finite, a refused resume, an output not writable."""
