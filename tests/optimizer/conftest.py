from pathlib import Path

import pytest
from search_fakes import SPACE

from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    """Two variants, five axes, one rule; 80 deployments."""
    file = tmp_path / "tiny.yaml"
    file.write_text(SPACE, encoding="utf-8")
    return space_from_yaml(file)
