"""Lineage is proved or left out; what the optimizer really does is in ``test_backend_ort.py``."""

from onnx import GraphProto, NodeProto, TensorProto, helper

from trials.backends.ort_lineage import Lineage, Origin


def given() -> GraphProto:
    """Two branches of one input, added: y = relu(neg(x)) + abs(x)."""
    return helper.make_graph(
        [
            helper.make_node("Neg", ["x"], ["n"], name="neg"),
            helper.make_node("Relu", ["n"], ["r"], name="relu"),
            helper.make_node("Abs", ["x"], ["a"], name="abs"),
            helper.make_node("Add", ["r", "a"], ["y"], name="add"),
        ],
        "two branches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1,))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,))],
    )


def fused(*inputs: str, kind: str = "FusedNeg", name: str = "", output: str = "y") -> NodeProto:
    return helper.make_node(kind, inputs, [output], name=name, domain="com.microsoft")


def test_operators_between_what_is_read_and_what_is_made_are_the_origin() -> None:
    origin = Lineage(given()).origin(fused("x"), ())

    assert origin == Origin(tensor="y", nodes=("neg", "relu", "abs", "add"))


def test_reading_less_than_the_operators_need_is_no_proof() -> None:
    lineage = Lineage(given())
    lineage.origin(fused("x", output="a"), ())

    assert lineage.origin(fused("a"), ()) == Origin(tensor="y")


def test_reading_more_than_the_operators_need_is_no_proof() -> None:
    lineage = Lineage(given())
    lineage.origin(fused("x", output="n"), ())

    assert lineage.origin(fused("n", "x", output="r"), ()) == Origin(tensor="r")


def test_reading_what_nobody_knows_is_no_proof() -> None:
    assert Lineage(given()).origin(fused("mystery"), ()) == Origin(tensor="y")
    assert Lineage(given()).origin(fused("mystery", output="z"), ()) == Origin()


def test_name_alone_is_no_proof() -> None:
    lineage = Lineage(given())

    assert lineage.origin(fused("x", kind="FusedConv", name="relu", output="z"), ()) == Origin()


def test_renamed_operator_is_found_by_name_and_proof_together() -> None:
    lineage = Lineage(given())

    renamed = lineage.origin(fused("x", name="neg_token_7", output="z"), ())
    later = lineage.origin(fused("z", output="r"), ())

    assert renamed == Origin(tensor="n", nodes=("neg",))
    assert later == Origin(tensor="r", nodes=("relu",))


def test_constants_of_the_optimizer_are_not_looked_for_in_the_model() -> None:
    assert Lineage(given()).origin(fused("x", "w", output="n"), ("w",)).nodes == ("neg",)
    assert Lineage(given()).origin(fused("x", "w", output="n"), ()).nodes == ()
