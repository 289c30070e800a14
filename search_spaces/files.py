"""Space files: the one way in from YAML, and the schema that editors complete them with."""

from pathlib import Path

from pydantic import ValidationError

from search_spaces.assembly import space_from_document
from search_spaces.complaints import space_error_from_validation
from search_spaces.document import SpaceDocument
from search_spaces.space import SearchSpace
from search_spaces.yaml_text import data_from_yaml

_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def space_from_yaml(path: Path) -> SearchSpace:
    """Read a space file and check all of it, the files that it names included.

    Raises:
        SpaceError: Anything that is wrong with it, in one line that names the file, the key, the
            value and the mend.
    """
    data = data_from_yaml(path)
    try:
        document = SpaceDocument.model_validate(data)
    except ValidationError as error:
        raise space_error_from_validation(error, source=str(path)) from error
    return space_from_document(document, path=path)


def json_schema() -> dict[str, object]:
    """Describe space files as JSON Schema, with a description and an example for every key."""
    return {"$schema": _SCHEMA_DIALECT, **SpaceDocument.model_json_schema()}
