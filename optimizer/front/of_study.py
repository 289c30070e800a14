"""The front of a study in a workspace, with everything that is known of it."""

from optimizer.certifying.certificate import certificate_of
from optimizer.certifying.showing import with_certificate
from optimizer.front.asking import Question
from optimizer.front.draws import BlocksOf
from optimizer.front.front import Front, front_of
from optimizer.front.resampling import with_probabilities
from optimizer.study.study import SearchStudy
from optimizer.workspace import Workspace, load_blocks
from trials.measurement import Block


def front_of_study(
    study: SearchStudy, workspace: Workspace, question: Question | None = None
) -> Front:
    """Compute a study's front, with the probability of each candidate that it belongs there.

    Where the study's own question is asked and its front was certified, the probabilities are the
    certified ones.

    Args:
        study: Whose trials.
        workspace: Where their raw blocks lie; a trial of another machine does without.
        question: What is asked; what the study wanted, unless told.

    Raises:
        WorkspaceError: Raw blocks that cannot be read.
    """
    space = study.space
    own = Question(objectives=space.objectives, constraints=space.constraints)
    question = question or own
    records = question.chosen(study.records())
    front = front_of(records, question.objectives, question.constraints)
    front = with_probabilities(front, blocks_in(workspace))
    certificate = certificate_of(study) if question == own else None
    if certificate is None:
        return front
    return with_certificate(front, certificate, trials=len(records))


def blocks_in(workspace: Workspace) -> BlocksOf:
    """Return what finds the raw blocks of a trial in a workspace."""

    def blocks_of(uid: str) -> tuple[Block, ...] | None:
        try:
            return load_blocks(workspace.blocks(uid))
        except FileNotFoundError:
            return None

    return blocks_of
