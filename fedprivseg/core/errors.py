"""The exception tree.

    FedprivsegError
    ├── RequestError          the request was wrong: exit status 2, nothing written
    │   ├── ScenarioError     a scenario or site file (unknown key, bad value)
    │   ├── DataError         a data folder that is absent, empty or no release; a site without subjects
    │   └── FolderError       a run folder that cannot be written, or belongs to another scenario
    ├── RunError              the run failed: exit status 1
    │   ├── SiteError         every site died or answered with an error (their names, the errors' types, log ids)
    │   └── ServerError       the server half failed
    ├── QuorumError           too few sites remain: exit status 3
    ├── ModelRefused          weights from the server that a site does not train on
    ├── PayloadError          bytes that are no acceptable payload (refused at the intake)
    └── LedgerError           a ledger that was changed, shortened or re-ordered

Messages name the value given, the values allowed and the next step; never a patient, a path inside a site or an intensity.
"""

from __future__ import annotations

import builtins


class FedprivsegError(Exception):
    """Root of every error this package raises on purpose. ``status`` is the exit status of the command line."""

    status = 1


class RequestError(FedprivsegError):
    """The request was wrong; nothing was written."""

    status = 2


class ScenarioError(RequestError):
    """A scenario or site file is wrong."""


class DataError(RequestError):
    """A data folder is absent, empty or no release, or a site has no subjects."""


class FolderError(RequestError):
    """A run folder cannot be used."""


class RunError(FedprivsegError):
    """The run failed."""


class SiteError(RunError):
    """Every site died, was silent or answered with an error. Of some of them a run does without, while its quorum holds."""


class ServerError(RunError):
    """The server half failed."""


class QuorumError(FedprivsegError):
    """Too few sites remain."""

    status = 3


class PayloadError(FedprivsegError):
    """Bytes that are no acceptable payload."""


class ModelRefused(FedprivsegError):
    """Weights from the server on which a site does not train: nothing is computed, and its part in the run ends.

    Args:
        rule: its id, as in ledgers.
        reason: a sentence for a person; nothing of it depends on the site's data but that the rule was broken.
        clause: of T/SCGS 313008-2024, which asks for it.
    """

    def __init__(self, rule: str, reason: str, clause: str = "5.1.2-c") -> None:
        super().__init__(reason)
        self.rule, self.reason, self.clause = rule, reason, clause


class LedgerError(FedprivsegError):
    """A ledger does not verify."""


_NAMES = frozenset(
    {
        *(
            name
            for name, value in vars(builtins).items()
            if isinstance(value, type) and issubclass(value, BaseException)
        ),
        *(name for name, value in globals().items() if isinstance(value, type) and issubclass(value, BaseException)),
        "OutOfMemoryError",  # torch's, of a GPU
        "SafetensorError",
        "SealError",  # of a sealed vault
    }
)
"""The words in which an error may leave a site. Taken when this module is imported, before any method has run."""


def named(kind: type[BaseException]) -> str:
    """The name of an exception's type, or of the nearest above it that is Python's or this package's: code can make types of
    any name as it runs, and this name leaves a site without having passed the gate."""
    return next((each.__name__ for each in kind.__mro__ if each.__name__ in _NAMES), "unknown")
