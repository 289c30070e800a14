"""What certifying remembers with the study: each new measurement, and what they all came to.

A measurement is written when it is made, so that a kill loses the one that was running and no
other; the certificate is written when the front is decided or the time is over. Raw blocks lie
beside those of the trials, with the session's number in their name.
"""

from dataclasses import dataclass

from pydantic import TypeAdapter

from optimizer.study.study import SearchStudy
from trials.measurement import Estimate

_MEASURED = "trifront:certify:"
_CERTIFICATE = "trifront:certificate"
_DECIDED = 0.05  # probability up to which a candidate does not belong; from 1 less this on it does


def is_open(probability: float) -> bool:
    """Tell of the probability that a candidate belongs whether it leaves that undecided."""
    return _DECIDED < probability < 1 - _DECIDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Remeasured:
    """A candidate, measured once more.

    Attributes:
        trial: Its number.
        session: From 0.
        flags: Words of caution, as in a trial's outcome.
        speeds: (metric, value), in the metric's unit.
    """

    trial: int
    session: int
    flags: tuple[str, ...]
    speeds: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """One candidate in a certificate.

    Attributes:
        probability: That it belongs on the front, in [0, 1].
        sessions: In which it was measured.
        speeds: (metric, estimate over sessions).
    """

    trial: int
    probability: float
    sessions: int
    speeds: tuple[tuple[str, Estimate], ...]

    @property
    def is_open(self) -> bool:
        """Tell whether it is undecided that it belongs."""
        return is_open(self.probability)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What certifying came to.

    Attributes:
        at_s: When, seconds since the epoch.
        sessions: Finished ones.
        decided: Every candidate belongs, or does not, with a probability of 95 %.
        trials: Ended trials of the study at that time.
        contended: Share of the measurements during which others took the processor.
    """

    at_s: float
    sessions: int
    decided: bool
    trials: int
    contended: float
    candidates: tuple[Certified, ...]

    def probabilities(self) -> dict[int, float]:
        """Return the probability of each candidate by its trial's number."""
        return {one.trial: one.probability for one in self.candidates}

    def of_trial(self, number: int) -> Certified | None:
        """Return what it says of a trial; None where it says nothing."""
        return next((one for one in self.candidates if one.trial == number), None)


_REMEASURED: TypeAdapter[Remeasured] = TypeAdapter(Remeasured)
_CERTIFIED: TypeAdapter[Certificate] = TypeAdapter(Certificate)


def keep_remeasured(study: SearchStudy, one: Remeasured) -> None:
    """Write a measurement; the same trial and session again replaces it.

    Raises:
        StorageError: The storage is out of reach.
    """
    name = f"{_MEASURED}{one.trial}:{one.session}"
    study.remember(name, _REMEASURED.dump_json(one).decode())


def remeasured_of(study: SearchStudy) -> tuple[Remeasured, ...]:
    """Read all measurements, in order of session and trial.

    Raises:
        StorageError: The storage is out of reach.
    """
    found = [_REMEASURED.validate_json(text) for text in study.remembered(_MEASURED).values()]
    return tuple(sorted(found, key=lambda one: (one.session, one.trial)))


def keep_certificate(study: SearchStudy, certificate: Certificate) -> None:
    """Write the certificate in place of an earlier one.

    Raises:
        StorageError: The storage is out of reach.
    """
    study.remember(_CERTIFICATE, _CERTIFIED.dump_json(certificate).decode())


def certificate_of(study: SearchStudy) -> Certificate | None:
    """Read the certificate, None where the study has none.

    Raises:
        StorageError: The storage is out of reach.
    """
    text = study.remembered(_CERTIFICATE).get(_CERTIFICATE)
    return None if text is None else _CERTIFIED.validate_json(text)
