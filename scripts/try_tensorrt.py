"""Take TensorRT from step to step on this machine; one JSON line each, the last where it stopped.

    python scripts/try_tensorrt.py DIR

DIR is put on Python's path, so that an unpacked wheel will do. For a process of its own: TensorRT
may take it down. Builds, loads and runs one activation; nothing of the card is changed.
"""

import json
import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """Take the steps."""
    sys.path.insert(0, sys.argv[1])
    trt = _library()
    said: list[str] = []
    listener = _listener(trt, said)
    plan = _plan(trt, listener)
    _say("build", bytes=0 if plan is None else plan.nbytes, said=said[-5:])
    if plan is None:
        return
    engine = trt.Runtime(listener).deserialize_cuda_engine(plan)
    _say("deserialize", loads=engine is not None, said=said[-5:])
    if engine is not None:
        _say("run", right=_runs(engine), said=said[-5:])


def _library() -> Any:
    try:
        found = import_module("tensorrt")
    except ImportError as error:
        _say("import tensorrt", error=str(error))
        found = import_module("tensorrt_rtx")
    _say("import", name=found.__name__, version=found.__version__)
    return found


def _listener(trt: Any, said: list[str]) -> Any:
    class Listener(trt.ILogger):  # type: ignore[misc] # untyped
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, text: str) -> None:
            said.append(f"{severity}: {text}")

    return Listener()


def _plan(trt: Any, listener: Any) -> Any:
    builder = trt.Builder(listener)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    given = network.add_input("x", trt.float16, (8, 16))
    layer = network.add_activation(given, trt.ActivationType.RELU)
    network.mark_output(layer.get_output(0))
    return builder.build_serialized_network(network, builder.create_builder_config())


def _runs(engine: Any) -> bool:
    """Run it over an answer that is not one, and see what it wrote."""
    import torch

    context = engine.create_execution_context()
    x = torch.randn(8, 16, device="cuda", dtype=torch.float16)
    y = torch.full_like(x, float("nan"))
    for index, tensor in enumerate((x, y)):
        context.set_tensor_address(engine.get_tensor_name(index), tensor.data_ptr())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    return bool(torch.equal(y, x.relu()))


def _say(step: str, **facts: object) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)


if __name__ == "__main__":
    main()
