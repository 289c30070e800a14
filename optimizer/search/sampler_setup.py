"""What our own sampler was made with, kept with the study so that its reasons can be told."""

from dataclasses import dataclass

from pydantic import TypeAdapter

from trials.capabilities import EngineIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a sampler was set up by the last session.

    Attributes:
        engines: Which deployments share an engine.
        seed: Of the sampler.
    """

    engines: EngineIdentity
    seed: int


_SETUP: TypeAdapter[Setup] = TypeAdapter(Setup)


def json_from_setup(setup: Setup) -> str:
    """Serialize a setup."""
    return _SETUP.dump_json(setup).decode()


def setup_from_json(text: str) -> Setup:
    """Read a setup back.

    Raises:
        pydantic.ValidationError: Not one that this version can read.
    """
    return _SETUP.validate_json(text)
