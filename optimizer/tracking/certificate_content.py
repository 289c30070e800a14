"""What MLflow is told of a certificate: pure functions, no MLflow call.

The run of each certified trial gets the tag ``certified`` (whether it belongs on the front), and
as metrics ``certified.probability``, ``certified.sessions`` and each speed over the sessions, with
the ends of its 95 % interval beside it as elsewhere.
"""

from enum import StrEnum

from optimizer.certifying.certificate import Certificate, Certified
from optimizer.certifying.showing import words_of
from optimizer.study.study import SearchStudy
from optimizer.tracking.messages import CertificateGiven, CertifiedTrial
from optimizer.tracking.run_content import metrics_of_estimates
from optimizer.tracking.search_content import uid_of_search
from trials.measurement import exact

CERTIFIED = "certified"  # tag of a trial's run: its standing
CERTIFICATE = "certificate"  # tag of the run of the search: the certificate in words

_MS_PER_S = 1e3


class Standing(StrEnum):
    """What the latest certificate says of a trial.

    ``TRUE`` and ``FALSE`` are said with a probability of at least 95 %; ``OUTDATED`` is a trial of
    which only an earlier certificate speaks.
    """

    TRUE = "true"
    FALSE = "false"
    UNDECIDED = "undecided"
    OUTDATED = "outdated"


def content_of_certificate(study: SearchStudy, certificate: Certificate) -> CertificateGiven:
    """Say what the runs of a study hold of its certificate."""
    return CertificateGiven(
        uid=study.identity,
        search=uid_of_search(study.identity),
        words=words_of(certificate, trials=certificate.trials),
        at_ms=round(certificate.at_s * _MS_PER_S),
        trials=tuple(_told(study.uid(one.trial), one) for one in certificate.candidates),
    )


def _told(uid: str, one: Certified) -> CertifiedTrial:
    estimates = {
        "probability": exact(one.probability),
        "sessions": exact(float(one.sessions)),
        **dict(one.speeds),
    }
    return CertifiedTrial(
        uid=uid,
        tags=((CERTIFIED, _standing(one).value),),
        metrics=metrics_of_estimates(
            {f"{CERTIFIED}.{name}": estimate for name, estimate in estimates.items()}
        ),
    )


def _standing(one: Certified) -> Standing:
    if one.is_open:
        return Standing.UNDECIDED
    return Standing.TRUE if round(one.probability) == 1 else Standing.FALSE
