"""Run a converted model on the CPU for its answers, not for its speed.

ONNX Runtime is asked to optimize nothing, for its optimizer miscomputes fp8 pairs (a classifier of
0.97 answers like one of 0.11). It has few operators of bf16, and runs those of fp16 in fp32 and
without rounding in between, so that nothing overflows there which would elsewhere. So every
operator of these types is run in fp32 and its result rounded: as GPUs do it, which multiply 16-bit
numbers exactly and add up in fp32.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        content = _rounding(model).SerializeToString()
        with _mapped():
            self._session: Any = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )

    def answers(self, batches: Sequence[Tensors]) -> Tensors:
        """Return the outputs for some batches, joined.

        Args:
            batches: By input name, at least one; a model of a fixed batch takes no other.

        Returns:
            Arrays of shape ``(samples, …)`` by output name.

        Raises:
            UnsupportedError: ONNX Runtime cannot run it on batches of this shape.
        """
        names = [output.name for output in self._session.get_outputs()]
        with _mapped():
            parts = [self._session.run(names, dict(batch)) for batch in batches]
        return {
            name: np.concatenate([part[place] for part in parts])
            for place, name in enumerate(names)
        }


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # it raises types of its own that share no base but this
        raise UnsupportedError(
            f"its answers cannot be checked on the CPU ({one_line(str(error))})"
        ) from error


def _rounding(model: "ModelProto") -> "ModelProto":
    """Return a model that rounds to 16 bits where the given one computes in them."""
    import onnx
    from onnx import TensorProto, numpy_helper

    short = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    types = {name: kind for name, kind in element_types(model).items() if kind in short}
    if not types:
        return model
    rounding = onnx.ModelProto()
    rounding.CopyFrom(model)
    graph = rounding.graph
    del graph.node[:], graph.value_info[:]
    for tensor in graph.initializer:
        if tensor.data_type in short:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in model.graph.node:
        graph.node.extend(_rounded(node, types))
    return rounding


def _rounded(node: "NodeProto", types: Mapping[str, int]) -> Iterator["NodeProto"]:
    """Yield a node that computes in fp32, and casts that round its 16-bit outputs."""
    import onnx
    from onnx import TensorProto, helper

    exact = onnx.NodeProto()
    exact.CopyFrom(node)
    for attribute in exact.attribute:
        if attribute.name == "to" and attribute.i in types.values():
            attribute.i = TensorProto.FLOAT
    for place, name in enumerate(node.output):
        if name in types:
            exact.output[place] = f"{name}_exact"
    yield exact
    for name in node.output:
        if name in types:
            rounded = f"{name}_rounded"
            yield helper.make_node("Cast", [f"{name}_exact"], [rounded], to=types[name])
            yield helper.make_node("Cast", [rounded], [name], to=TensorProto.FLOAT)
