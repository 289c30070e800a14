"""Files about trials: made on demand, kept for a while, and never a page."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_fakes import infeasible, measured, record_of

from optimizer.dashboard.artifacts import (
    ArtifactProvider,
    BlocksProvider,
    TrialArtifacts,
    identity_of,
    name_from_identity,
    type_of,
)
from optimizer.study.records import TrialRecord
from optimizer.workspace import Workspace, load_blocks, save_blocks
from search_spaces.space import SearchSpace
from trials.outcome import Completed


@dataclass
class LayersProvider:
    """A provider as another part of the program would bring it, that counts its work."""

    made: list[str] = field(default_factory=list)
    size: int = 10

    def names(self, record: TrialRecord) -> tuple[str, ...]:
        return ("layers.csv",) if isinstance(record.outcome, Completed) else ()

    def content(self, record: TrialRecord, name: str) -> bytes:
        self.made.append(f"{record.number}/{name}")
        return b"l" * self.size


@pytest.fixture
def record(space: SearchSpace) -> TrialRecord:
    return record_of(7, measured(next(space.deployments())))


@pytest.fixture
def workspace(tmp_path: Path, record: TrialRecord) -> Workspace:
    workspace = Workspace(root=tmp_path)
    assert isinstance(record.outcome, Completed)
    save_blocks(record.outcome.blocks * 3, workspace.blocks(record.uid))
    return workspace


@pytest.fixture(params=["blocks", "layers"])
def provider(request: pytest.FixtureRequest, workspace: Workspace) -> ArtifactProvider:
    return BlocksProvider(workspace) if request.param == "blocks" else LayersProvider()


def test_provider_makes_what_it_names_and_names_nothing_of_what_was_not_measured(
    provider: ArtifactProvider, record: TrialRecord, space: SearchSpace
) -> None:
    ghost = record_of(8, infeasible(next(space.deployments())))

    contents = [provider.content(record, name) for name in provider.names(record)]

    assert contents
    assert all(contents)
    assert provider.names(ghost) == ()


def test_measured_trial_has_its_histogram_and_its_raw_blocks(
    workspace: Workspace, record: TrialRecord, tmp_path: Path
) -> None:
    artifacts = TrialArtifacts([BlocksProvider(workspace)])

    picture = artifacts.artifact(record, "latencies.png")
    blocks = artifacts.artifact(record, "blocks.parquet")

    assert picture is not None
    assert picture.content_type == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    assert blocks is not None
    (tmp_path / "back.parquet").write_bytes(blocks.content)
    assert len(load_blocks(tmp_path / "back.parquet")) == 3


def test_trial_whose_blocks_are_elsewhere_has_none(
    workspace: Workspace, space: SearchSpace
) -> None:
    other = record_of(9, measured(next(space.deployments())))
    artifacts = TrialArtifacts([BlocksProvider(workspace)])

    assert artifacts.names(other) == ()
    assert artifacts.artifact(other, "latencies.png") is None


def test_files_of_several_providers_stand_side_by_side(
    workspace: Workspace, record: TrialRecord
) -> None:
    artifacts = TrialArtifacts([BlocksProvider(workspace), LayersProvider()])

    assert artifacts.names(record) == ("latencies.png", "blocks.parquet", "layers.csv")


def test_file_is_made_once_however_often_it_is_asked_for(record: TrialRecord) -> None:
    layers = LayersProvider()
    artifacts = TrialArtifacts([layers])

    contents = {artifacts.artifact(record, "layers.csv") for _ in range(3)}

    assert len(contents) == 1
    assert layers.made == ["7/layers.csv"]


def test_only_the_latest_files_are_kept(space: SearchSpace) -> None:
    records = [record_of(number, measured(next(space.deployments()))) for number in range(3)]
    layers = LayersProvider(size=30 * 1024**2)
    artifacts = TrialArtifacts([layers])

    for record in (*records, records[2], records[0]):
        artifacts.artifact(record, "layers.csv")

    assert layers.made == ["0/layers.csv", "1/layers.csv", "2/layers.csv", "0/layers.csv"]


class GoneProvider(LayersProvider):
    def content(self, record: TrialRecord, name: str) -> bytes:
        raise FileNotFoundError(f"{record.number}/{name}")


def test_file_whose_source_vanishes_after_it_was_named_is_not_there(record: TrialRecord) -> None:
    assert TrialArtifacts([GoneProvider()]).artifact(record, "layers.csv") is None


@pytest.mark.parametrize(
    "name", ["page.html", "page.HTM", "page.xhtml", "draw.svg", "script.js", "feed.xml", "noname"]
)
def test_nothing_is_ever_served_as_a_page(name: str) -> None:
    assert type_of(name) == "application/octet-stream"


@given(name=st.text(min_size=1), trial_id=st.integers(0, 10**9))
def test_identity_gives_the_name_back_to_its_own_trial_alone(name: str, trial_id: int) -> None:
    identity = identity_of(trial_id, name)

    assert name_from_identity(identity, trial_id) == name
    assert name_from_identity(identity, trial_id + 1) is None


@pytest.mark.parametrize("identity", ["", "7", "7-", "7-f", "7-zz", "-6c", "7-ff", "../7-6c"])
def test_identity_that_is_none_of_ours_names_nothing(identity: str) -> None:
    assert name_from_identity(identity, 7) is None
