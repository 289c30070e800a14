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

        deployments = {
            one.record.number: short(one.record.outcome.deployment)
            for one in self.front.candidates
        }
        found = {one.trial: one for one in self.certificate.candidates}
        rows = []
        for number, deployment in deployments.items():
            if number not in found:
                continue
            one = found[number]
            row: dict[str, object] = {
                "trial": number,
                "deployment": deployment,
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
