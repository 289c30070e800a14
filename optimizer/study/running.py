"""Trials that Optuna calls running: whose they are, and whether they really run."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from optuna.trial import FrozenTrial, TrialState

from optimizer.study.owner import is_alive
from search_spaces.deployment import Scalar

OWNER = "owner"  # attribute of a trial: the signature of the process that runs it

_UNSIGNED = timedelta(seconds=30)  # running so long without an owner: orphaned at birth


def is_orphan(frozen: FrozenTrial, *, in_turn: bool) -> bool:
    """Tell whether whoever began a running trial is dead.

    Args:
        frozen: The trial.
        in_turn: Trials are begun in turns and it is ours, so nobody is about to sign this one.
    """
    signature = frozen.user_attrs.get(OWNER)
    if signature is None:
        return in_turn or _age(frozen) > _UNSIGNED
    return is_alive(signature) is False


def seems_alive(frozen: FrozenTrial, longest: timedelta) -> bool:
    """Tell whether somebody runs a trial; one of another host is believed for ``longest``."""
    signature = frozen.user_attrs.get(OWNER)
    if frozen.state is not TrialState.RUNNING or signature is None:
        return False
    alive = is_alive(signature)
    return _age(frozen) < longest if alive is None else alive


def params_of(frozen: FrozenTrial) -> Mapping[str, Scalar]:
    """Return a trial's parameters, also those that it was enqueued with and not yet given."""
    return {**frozen.system_attrs.get("fixed_params", {}), **frozen.params}


def _age(frozen: FrozenTrial) -> timedelta:
    assert frozen.datetime_start is not None, "it was begun"
    return datetime.now() - frozen.datetime_start  # noqa: DTZ005 - Optuna's clock
