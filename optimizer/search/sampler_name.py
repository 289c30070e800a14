"""Names of the samplers; apart from the samplers, so that ``--help`` need not load them."""

from enum import StrEnum


class SamplerName(StrEnum):
    """Samplers that a search can be told to use."""

    AUTO = "auto"
    FRONT = "front"
    GP = "gp"
    TPE = "tpe"
    NSGA2 = "nsga2"
    RANDOM = "random"
    GRID = "grid"
