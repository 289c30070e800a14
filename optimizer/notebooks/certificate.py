"""A certificate to look at, as a frame."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.certifying.certificate import Certificate
from optimizer.certifying.showing import lines_of_certificate
from optimizer.front.front import Front
from optimizer.front.words import short
from optimizer.notebooks.html import cells_of, html_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateView:
    """A certificate to look at; in a notebook it shows itself.

    Attributes:
        certificate: The certificate itself.
        front: Whose candidates were measured again.
    """

    certificate: Certificate
    front: Front

    @property
    def decided(self) -> bool:
        """Whether every candidate belongs, or does not, with a probability of 95 %."""
        return self.certificate.decided

    def table(self) -> "pd.DataFrame":
        """Return each candidate: its deployment, probability, sessions, and speeds over these.

        Returns:
            One row a candidate, indexed by trial number, in order of the front; each speed with
            ``.low`` and ``.high``, NaN where a limit is not known.
        """
        import pandas as pd

        rows = []
        for candidate in self.front.candidates:
            one = self.certificate.of_trial(candidate.record.number)
            if one is None:
                continue
            row: dict[str, object] = {
                "trial": one.trial,
                "deployment": short(candidate.record.outcome.deployment),
                "probability": one.probability,
                "sessions": one.sessions,
            }
            for name, estimate in one.speeds:
                row |= cells_of(name, estimate)
            rows.append(row)
        return pd.DataFrame(rows).set_index("trial")

    def _repr_html_(self) -> str:
        heading, *lines = lines_of_certificate(self.certificate, trials=self.certificate.trials)
        return html_of(heading, [self.table()], lines)
