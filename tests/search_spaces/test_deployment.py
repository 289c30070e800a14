import pytest

from search_spaces.deployment import Deployment, Precision, Scalar, deployment_from_axes

VALUES: dict[str, Scalar] = {
    "threads": 2,
    "graphs": True,
    "variant": "small",
    "precision": "int8-dynamic",
    "batch_size": 8,
    "concurrency": 1,
}


def test_deployment_is_made_from_its_axes_with_options_sorted() -> None:
    deployment = deployment_from_axes(VALUES)

    assert deployment == Deployment(
        variant="small",
        precision=Precision.INT8_DYNAMIC,
        batch_size=8,
        concurrency=1,
        options=(("graphs", True), ("threads", 2)),
    )
    assert dict(deployment.axes()) == VALUES


def test_deployment_reads_as_one_line() -> None:
    assert str(deployment_from_axes(VALUES)) == (
        "variant=small precision=int8-dynamic batch_size=8 concurrency=1 graphs=True threads=2"
    )


def test_missing_axis_or_unknown_precision_is_an_error() -> None:
    with pytest.raises(KeyError, match="variant"):
        deployment_from_axes({"precision": "fp32"})
    with pytest.raises(ValueError, match="fp31"):
        deployment_from_axes({**VALUES, "precision": "fp31"})
