"""A real Triton Inference Server, where ``scripts/triton-install`` has put one."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trials.backend import Tensors

_ROOT = Path(__file__).parents[1]
_START_S = 60.0
_TYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}

# runs what ONNX Runtime's own backend would; that one is in no package
_STAND_IN = """
from pathlib import Path
import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        model = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(model))

    def execute(self, requests):
        return [triton.InferenceResponse([
            triton.Tensor(output.name, array) for output, array in zip(
                self.session.get_outputs(),
                self.session.run(None, {
                    one.name: triton.get_input_tensor_by_name(request, one.name).as_numpy()
                    for one in self.session.get_inputs()
                }),
            )
        ]) for request in requests]
"""


@dataclass(frozen=True, kw_only=True)
class Triton:
    """An installed server.

    Attributes:
        venv: Its virtual environment.
        packages: Where its packages lie.
    """

    venv: Path
    packages: Path

    def parsed(self, config: Path) -> Any:
        """Parse a ``config.pbtxt`` with Triton's own protobuf; returns it as JSON data."""
        program = (
            "import sys; from google.protobuf import json_format, text_format;"
            "from tritonclient.grpc.model_config_pb2 import ModelConfig;"
            "config = text_format.Parse(open(sys.argv[1]).read(), ModelConfig());"
            "print(json_format.MessageToJson(config, preserving_proto_field_name=True))"
        )
        command = [str(self.venv / "bin/python"), "-c", program, str(config)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(ran.stdout)

    @contextmanager
    def serving(self, repository: Path, scratch: Path) -> Iterator["Client"]:
        """Serve a model repository until the block ends.

        Raises:
            RuntimeError: The server refuses it, with its log.
        """
        port, log = _free_port(), scratch / "triton.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [
                    str(self.packages / "pytriton/tritonserver/bin/tritonserver"),
                    f"--model-repository={repository}",
                    f"--backend-directory={self._backends(scratch)}",
                    *("--http-address", "127.0.0.1", "--http-port", str(port)),
                    *("--allow-grpc", "false", "--allow-metrics", "false"),
                ],
                stdout=output,
                stderr=output,
                env=os.environ
                | {
                    "PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}",
                    "LD_LIBRARY_PATH": str(self.packages / "nvidia_pytriton.libs"),
                },
            )
        try:
            client = Client(port=port)
            until = time.monotonic() + _START_S
            while not client.is_ready():
                if server.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(log.read_text(encoding="utf-8", errors="replace"))
                time.sleep(0.1)
            yield client
        finally:
            server.terminate()
            server.wait()

    def _backends(self, scratch: Path) -> Path:
        """Lay out the server's Python backend for our Python, and the stand-in beside it."""
        server = self.packages / "pytriton/tritonserver"
        folder = scratch / "backends"
        shutil.copytree(server / "backends/python", folder / "python")
        version = ".".join(map(str, sys.version_info[:2]))
        stub = f"python_backend_stubs/{version}/triton_python_backend_stub"
        shutil.copy(server / stub, folder / "python")
        (folder / "onnxruntime").mkdir()
        (folder / "onnxruntime/model.py").write_text(_STAND_IN, encoding="utf-8")
        return folder


@dataclass(frozen=True, kw_only=True)
class Client:
    """Talks to a server of this machine by HTTP."""

    port: int

    def is_ready(self) -> bool:
        """Tell whether all models are loaded."""
        try:
            return self._asked("v2/health/ready", None)[0] == HTTPStatus.OK
        except (OSError, HTTPException):
            return False

    def config(self, model: str) -> Any:
        """Return a model's configuration as the server understood it."""
        return self._json(f"v2/models/{model}/config", None)

    def infer(self, model: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Let a model answer one request."""
        found = self._json(f"v2/models/{model}/infer", {"inputs": _written(inputs)})
        return {
            one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in found["outputs"]
        }

    def classes(self, model: str, inputs: Tensors, output: str) -> list[str]:
        """Return the best class of each sample of a request, as ``score:number:label``."""
        wanted = [{"name": output, "parameters": {"classification": 1}}]
        document = {"inputs": _written(inputs), "outputs": wanted}
        found = self._json(f"v2/models/{model}/infer", document)
        return list(found["outputs"][0]["data"])

    def _json(self, path: str, document: Any) -> Any:
        status, body = self._asked(path, document)
        assert status == HTTPStatus.OK, body
        return json.loads(body)

    def _asked(self, path: str, document: Any) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            body = None if document is None else json.dumps(document)
            connection.request("GET" if body is None else "POST", f"/{path}", body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def installed_triton() -> Triton:
    """Find the server, or skip the test and say why."""
    venv = Path(os.environ.get("TRIFRONT_TRITON_VENV", _ROOT / ".venv-triton"))
    packages = next(iter(venv.glob("lib/python*/site-packages")), None)
    if packages is None or not (packages / "pytriton/tritonserver/bin/tritonserver").is_file():
        pytest.skip("needs a Triton server: scripts/triton-install")
    if packages.parent.name != f"python{sys.version_info[0]}.{sys.version_info[1]}":
        pytest.skip("the Triton server was installed for another Python; remove .venv-triton")
    return Triton(venv=venv, packages=packages)


def _written(inputs: Tensors) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": _TYPES[array.dtype.name],
            "data": array.ravel().tolist(),
        }
        for name, array in inputs.items()
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
