"""Scores of two engines against each other."""

import math
from dataclasses import replace

import numpy as np

from optimizer.verification.findings import ScoreFinding
from search_spaces.metrics import METRICS
from trials.measurement import Estimate, exact
from trials.measuring.comparison import Verdict, difference_of, verdict_on_difference
from trials.measuring.statistics import proportion
from trials.scoring.agreement import Predictions
from trials.scoring.paired import certain_gap

_POINT = 0.01  # of a share: what people round an accuracy to; of other scores, relative to the old
_SHARES = ("accuracy", "accuracy_top5", "macro_f1", "ece")


def compare_score(
    metric: str, new: Estimate, old: Estimate, *, data: str, same_samples: bool
) -> ScoreFinding:
    """Compare one score within one percentage point, or 1 % of what is no share.

    Args:
        metric: Its name.
        new: Scored now.
        old: What it is held against.
        data: What was scored now, for people.
        same_samples: Both were scored on the same samples. Then the difference is no estimate.
    """
    margin = _POINT if metric in _SHARES else _POINT * abs(old.value)
    difference = exact(new.value - old.value) if same_samples else difference_of(new, old)
    return ScoreFinding(
        metric=metric,
        data=data,
        new=new,
        old=old,
        difference=difference,
        margin=margin,
        verdict=verdict_on_difference(difference, METRICS[metric].direction, margin=margin),
    )


def compare_predictions(found: Predictions) -> ScoreFinding:
    """Compare accuracies on the references, sample by sample.

    A difference beyond one percentage point decides only where McNemar's exact test is as sure:
    among a few hundred samples one that changed sides is soon a point.
    """
    new, old = (
        proportion(int(np.count_nonzero(hits)), hits.size)
        for hits in (found.hits_new, found.hits_old)
    )
    gap = certain_gap(found.hits_new.astype(np.float64), found.hits_old.astype(np.float64))
    one = compare_score("accuracy", new, old, data="the references", same_samples=True)
    is_open = one.verdict is not Verdict.EQUIVALENT and math.isnan(gap)
    return replace(one, verdict=Verdict.UNDECIDED) if is_open else one
