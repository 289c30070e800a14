"""Run a converted model on the CPU for its answers, not for its speed.

ONNX Runtime is asked to optimize nothing, for its optimizer miscomputes fp8 pairs (a classifier of
0.97 answers like one of 0.11). It casts to bf16 and has few other operators of that type, so a
bf16 operator is run in fp32 and its result rounded to bf16: so do GPUs, which multiply bf16
exactly and add up in fp32.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trials.backend import Tensors
from trials.errors import UnsupportedError
from trials.models.onnx_graph import element_types
from trials.models.onnx_model import one_line

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_ERROR = 3  # log severity


class Rehearsal:
    """A model that was opened once, to be asked several times."""

    def __init__(self, model: "ModelProto") -> None:
        """Open the model.

        Raises:
            UnsupportedError: ONNX Runtime cannot run it, even unoptimized.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = _ERROR
        content = _without_bfloat16(model).SerializeToString()
        try:
            self._session: Any = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # it raises types of its own that share no base but this
            raise UnsupportedError(
                f"its answers cannot be checked on the CPU ({one_line(str(error))})"
            ) from error

    def answers(self, batches: Sequence[Tensors]) -> Tensors:
        """Return the outputs for some batches, joined.

        Args:
            batches: By input name, at least one; a model of a fixed batch takes no other.

        Returns:
            Arrays of shape ``(samples, …)`` by output name.
        """
        names = [output.name for output in self._session.get_outputs()]
        parts = [self._session.run(names, dict(batch)) for batch in batches]
        return {
            name: np.concatenate([part[place] for part in parts])
            for place, name in enumerate(names)
        }


def _without_bfloat16(model: "ModelProto") -> "ModelProto":
    """Return a model that rounds to bf16 where the given one computes in it."""
    import onnx
    from onnx import TensorProto, numpy_helper

    types = element_types(model)
    if TensorProto.BFLOAT16 not in types.values():
        return model
    rounding = onnx.ModelProto()
    rounding.CopyFrom(model)
    graph = rounding.graph
    del graph.node[:], graph.value_info[:]
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    narrow = {name for name, kind in types.items() if kind == TensorProto.BFLOAT16}
    for node in model.graph.node:
        graph.node.extend(_rounded(node, narrow))
    return rounding


def _rounded(node: "NodeProto", narrow: set[str]) -> Iterator["NodeProto"]:
    """Yield a node that computes in fp32, and casts that round its bf16 outputs."""
    import onnx
    from onnx import TensorProto, helper

    exact = onnx.NodeProto()
    exact.CopyFrom(node)
    for attribute in exact.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.BFLOAT16:
            attribute.i = TensorProto.FLOAT
    for place, name in enumerate(node.output):
        if name in narrow:
            exact.output[place] = f"{name}_exact"
    yield exact
    for name in [name for name in node.output if name in narrow]:
        rounded = f"{name}_rounded"
        yield helper.make_node("Cast", [f"{name}_exact"], [rounded], to=TensorProto.BFLOAT16)
        yield helper.make_node("Cast", [rounded], [name], to=TensorProto.FLOAT)
