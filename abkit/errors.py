"""Every error abkit raises, in one tree.

::

    AbkitError
    |- ConfigError (ValueError)          weights, duplicate variants, a bad margin
    |- UnknownExperimentError (LookupError)
    |- DataError (ValueError)
    |  `- InsufficientDataError
    |- DesignError (ValueError)          alpha, information going backwards
    |- TransitionError                   an illegal rollout move
    |- StoreError
    |  |- SchemaVersionError
    |  `- StoreBusyError
    `- MissingExtraError (ImportError)   an optional dependency is not installed

Serving calls (`assign`, `expose`, `record`) never raise any of them: they return control, or
False, with a reason.
"""

from __future__ import annotations


class AbkitError(Exception):
    """Root of every error that abkit raises on purpose."""


class ConfigError(AbkitError, ValueError):
    """An experiment, policy or argument is not usable as written."""


class UnknownExperimentError(AbkitError, LookupError):
    """No experiment or rollout has this key."""


class DataError(AbkitError, ValueError):
    """A table or value handed in for analysis is not usable."""


class InsufficientDataError(DataError):
    """The data is well-formed but there is too little of it for the question."""


class DesignError(AbkitError, ValueError):
    """A statistical design is impossible: alpha, information, looks."""


class TransitionError(AbkitError):
    """A rollout cannot make this move from the state it is in."""


class StoreError(AbkitError):
    """The workspace or its store could not do what was asked."""


class SchemaVersionError(StoreError):
    """A file was written by a newer or foreign version of abkit."""


class StoreBusyError(StoreError):
    """Another process holds the lock that this operation needs."""


class MissingExtraError(AbkitError, ImportError):
    """An optional dependency is absent; the message names the extra to install."""
