"""The model as Triton's Python backend serves it: ONNX Runtime, one session per instance.

This file is exported as ``1/model.py`` as it stands, so it needs nothing of trifront, but Python,
NumPy and ONNX Runtime. How the session is set up stands in the ``parameters`` of ``config.pbtxt``.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class TritonPythonModel:
    """What the server makes once per instance, and calls with the requests that share a batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session.

        Args:
            args: The server's: ``model_config`` as JSON, ``model_repository``, ``model_version``.
        """
        import onnxruntime

        config = json.loads(args["model_config"])
        chosen = {key: one["string_value"] for key, one in config["parameters"].items()}
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, chosen["graph_optimization_level"]
        )
        options.intra_op_num_threads = int(chosen["intra_op_thread_count"])
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", chosen["spinning"])
        model = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session: Any = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._outputs = [one.name for one in self._session.get_outputs()]
        self._batches = config["max_batch_size"] > 0

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests, together where the server batches.

        Returns:
            A response per request, in their order; where a batch fails, each says why.
        """
        import triton_python_backend_utils as triton

        try:
            return self._answered(requests)
        except Exception as error:  # noqa: BLE001 - the server's process boundary: it is sent on
            failed = triton.TritonError(f"ONNX Runtime: {error}")
            return [triton.InferenceResponse(error=failed) for _ in requests]

    def finalize(self) -> None:
        """Release the session."""
        del self._session

    def _answered(self, requests: Sequence[Any]) -> list[Any]:
        import numpy as np
        import triton_python_backend_utils as triton

        given = [
            {name: triton.get_input_tensor_by_name(one, name).as_numpy() for name in self._inputs}
            for one in requests
        ]
        if not self._batches:
            answers = [self._session.run(None, feeds) for feeds in given]
        else:
            feeds = {name: np.concatenate([one[name] for one in given]) for name in self._inputs}
            ends = np.cumsum([len(one[self._inputs[0]]) for one in given])[:-1]
            pieces = [np.split(array, ends) for array in self._session.run(None, feeds)]
            answers = [list(answer) for answer in zip(*pieces, strict=True)]
        return [
            triton.InferenceResponse(
                [
                    triton.Tensor(name, array)
                    for name, array in zip(self._outputs, answer, strict=True)
                ]
            )
            for answer in answers
        ]
