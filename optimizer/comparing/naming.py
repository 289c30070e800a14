"""From what a user names to a comparison: live where both can be loaded here, else from blocks."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.comparing.compare import CompareOrder, Comparison, compare_live, compare_stored
from optimizer.comparing.side import (
    FileOrder,
    Side,
    Stored,
    side_of_bundle,
    side_of_file,
    side_of_trial,
    stored_of_bundle,
    stored_of_trial,
)
from optimizer.errors import ExportError, UsageError
from optimizer.export.gathering import measured
from optimizer.front.picking import record_named
from optimizer.study.records import TrialRecord
from optimizer.verification.bundle import Bundle, open_bundle
from optimizer.wiring import Place, opened_worker, study_at
from search_spaces.deployment import Scalar
from trials.errors import TrialError

if TYPE_CHECKING:
    from optimizer.study.study import SearchStudy

_ASKED_FOR = "as asked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Where names lead.

    Attributes:
        study: Of trials; None for the latest.
        files: How bare engine files are to be served.
    """

    place: Place
    study: str | None
    files: FileOrder


def compared(
    ab: tuple[str, str],
    names: Names,
    order: CompareOrder,
    *,
    stored: bool,
    on_step: Callable[[str], None],
) -> Comparison:
    """Compare what two names lead to.

    Args:
        ab: Each a trial, an exported folder or an engine file.
        names: Where they lead.
        order: What to compare.
        stored: Do not measure; compare what was measured.
        on_step: Told what goes on, in words.

    Raises:
        OptimizerError: A name that leads nowhere, or an export that is not what was exported.
        TrialError: An engine file that cannot be loaded here.
    """
    found = _Found(ab, names)
    loads = found.loads()
    if loads == {True, False}:
        raise UsageError(
            "one of them was measured under an open load and the other is not: they answer two "
            "questions",
            hint="compare deployments of one space",
        )
    if stored or loads == {True}:
        reason = _ASKED_FOR if stored else "an open load is not measured in turns"
        return compare_stored(*found.stored(), order, reason=reason)
    with tempfile.TemporaryDirectory(prefix="trifront-compare-") as scratch:
        try:
            on_step("getting both engines ready")
            sides = found.sides(Path(scratch))
        except (TrialError, ExportError) as error:  # not here or not now; blocks may be there
            on_step(f"not measured in turns: {error}")
            return compare_stored(*found.stored(), order, reason=str(error))
        return compare_live(*sides, order, on_step=on_step)


def options_of(texts: Sequence[str]) -> tuple[tuple[str, Scalar], ...]:
    """Read backend options such as ``threads=2``; whole numbers are numbers, all else is text.

    Raises:
        UsageError: One that is no ``name=value``.
    """
    found: dict[str, Scalar] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{text!r} is no option", hint="write one such as threads=2")
        found[name] = int(value) if value.isdecimal() else value
    return tuple(sorted(found.items()))


class _Found:
    """What two names lead to; studies and exports are opened once."""

    def __init__(self, ab: tuple[str, str], names: Names) -> None:
        self._names = names
        self._study: SearchStudy | None = None
        self._found = [(name, self._one(name)) for name in ab]

    def sides(self, scratch: Path) -> tuple[Side, Side]:
        """Get both engines ready.

        Raises:
            ExportError: A trial that was not measured, or whose engine is another one now.
            TrialError: An engine cannot be built or loaded here.
        """
        (name_a, a), (name_b, b) = self._found
        return self._side(name_a, a, scratch / "a"), self._side(name_b, b, scratch / "b")

    def loads(self) -> set[bool]:
        """Tell of each whether it is served under an open load; engine files are not."""
        return {_is_open(one) for _, one in self._found}

    def stored(self) -> tuple[Stored, Stored]:
        """Read what was measured of both.

        Raises:
            UsageError: An engine file, of which nothing is known; or blocks that are not here.
            ExportError: A trial that was not measured.
        """
        (name_a, a), (name_b, b) = self._found
        return self._stored_one(name_a, a), self._stored_one(name_b, b)

    def _one(self, name: str) -> TrialRecord | Bundle | Path:
        path = Path(name)
        if name.isdecimal() or not path.exists():
            if not name.isdecimal() and ("/" in name or path.suffix):
                raise UsageError(
                    f"{name}: there is no such file or folder",
                    hint="name a trial, an exported folder or an engine file",
                )
            if self._study is None:
                self._study = study_at(self._names.place, self._names.study)
            return record_named(name, self._study)
        return open_bundle(path) if path.is_dir() else path

    def _side(self, name: str, one: TrialRecord | Bundle | Path, scratch: Path) -> Side:
        scratch.mkdir()
        match one:
            case TrialRecord():
                assert self._study is not None
                place = self._names.place
                blocks = place.workspace.blocks(one.uid)
                with opened_worker(self._study.space, place) as worker:
                    return side_of_trial(name, one, self._study, worker, blocks=blocks)
            case Bundle():
                return side_of_bundle(name, one, scratch)
            case Path():
                return side_of_file(name, one, self._names.files)

    def _stored_one(self, name: str, one: TrialRecord | Bundle | Path) -> Stored:
        match one:
            case TrialRecord():
                blocks = self._names.place.workspace.blocks(one.uid)
                return stored_of_trial(name, one, measured(one).flags, blocks)
            case Bundle():
                return stored_of_bundle(name, one)
            case Path():
                raise UsageError(
                    f"{name}: of an engine file nothing was measured",
                    hint="compare it without --stored, or name a trial or an export",
                )


def _is_open(one: TrialRecord | Bundle | Path) -> bool:
    match one:
        case TrialRecord():
            return one.outcome.deployment.load is not None
        case Bundle():
            return one.manifest.deployment.deployment().load is not None
        case Path():
            return False
