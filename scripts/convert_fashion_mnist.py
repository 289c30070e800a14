"""Write the shipped Fashion-MNIST weights for torch, from the shipped ONNX files.

Takes the initializers by name, so that both forms of a model hold the same numbers, bit by bit.
Run it after ``train_fashion_mnist.py``; the digests in ``SHA256SUMS`` are written anew.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save

VARIANTS = ("cnn-w16", "cnn-w32", "resnet-w16")


def main() -> None:
    """Convert the variants that have a torch form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("search_spaces/shipped/fashion_mnist"))
    folder: Path = parser.parse_args().folder
    for name in VARIANTS:
        graph = onnx.load_model(folder / f"{name}.onnx").graph
        weights = {
            # the exporter's word for the bias that BatchNorm left behind
            tensor.name.replace(".weight_bias", ".bias"): np.array(numpy_helper.to_array(tensor))
            for tensor in graph.initializer
            if tensor.name.startswith("body.")
        }
        (folder / f"{name}.safetensors").write_bytes(save(weights))
    kinds = ("*.onnx", "*.npz", "*.safetensors")
    files = sorted(file for kind in kinds for file in folder.glob(kind))
    digests = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files]
    (folder / "SHA256SUMS").write_text("\n".join(digests) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
