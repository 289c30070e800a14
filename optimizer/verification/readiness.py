"""Get the engine of an export ready on this machine: the measured one, or one built anew."""

from dataclasses import dataclass
from pathlib import Path

from optimizer.export.manifest import Role
from optimizer.verification.bundle import Bundle
from trials.engine_files import Building, EngineFile, Machine, build_engine
from trials.isolation.child import Limits
from trials.isolation.errand import run_errand


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyEngine:
    """An engine that can be loaded here.

    Attributes:
        identical: It is the measured one, on the same kind of machine with the same library.
        story: Where it comes from, for people.
    """

    file: EngineFile
    identical: bool
    story: str


def ready_engine(bundle: Bundle, machine: Machine, scratch: Path, limits: Limits) -> ReadyEngine:
    """Take the measured engine where it was made for such a machine, else build another.

    Args:
        bundle: The export.
        machine: This one.
        scratch: A folder for what is built; it must outlive the engine.
        limits: Of the build.

    Raises:
        TrialError: The engine cannot be built here.
    """
    engine, deployment = bundle.manifest.engine, bundle.manifest.deployment.deployment()
    is_alike = engine.environment == dict(machine.engines)
    path = bundle.file(Role.ENGINE)
    if path is not None and is_alike:
        return ReadyEngine(
            file=EngineFile(backend=engine.backend, path=path, deployment=deployment),
            identical=True,
            story="engine: the one that was measured",
        )
    model = bundle.file(Role.MODEL)
    assert model is not None, "an export without a model was refused"
    spec = engine.spec(deployment.precision, machine.engines)
    built = scratch / "engine"
    building = Building(model=model, spec=spec, plan=built)
    identical = run_errand(build_engine, building, limits) == engine.sha256 and is_alike
    how = "the measured one, bit by bit" if identical else "another than the measured one"
    return ReadyEngine(
        file=EngineFile(backend=engine.backend, path=built, deployment=deployment),
        identical=identical,
        story=f"engine: built from the portable model; {how}",
    )
