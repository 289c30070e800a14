"""Train the shipped Fashion-MNIST variants and cut the shipped data splits, reproducibly.

Makes what ``search_spaces/shipped/fashion_mnist`` holds: six classifiers that trade accuracy for
speed, as ONNX with a dynamic batch dimension, and three disjoint slices of the data set. The last
6,000 training images are never trained on; calibration and search are cut from them, report from
the test images. Nothing is tuned on the report split: the schedule is fixed beforehand.

Needs torch (``pip install torch==2.13.0 onnxscript``) and the four ``*-ubyte.gz`` files of
Fashion-MNIST (Debian: ``apt-get install dataset-fashion-mnist``). About 40 minutes on two cores;
``--steps 50`` is a smoke run. Training is seeded, but floating-point sums differ between machines,
so a re-run gives the same accuracy within its interval, not the same bytes.

Sources: Xiao et al. 2017 (data, MIT licence); He et al. 2016 (residual blocks); Smith & Topin 2018
(one-cycle schedule); Zhong et al. 2020 (random erasing).
"""

import argparse
import gzip
import hashlib
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

CLASSES = 10
PIXELS = 28
HELD_OUT = 6_000  # training images never trained on; calibration and search come from them
SPLIT_SIZES = {"calibration": 500, "search": 3_000, "report": 5_000}
BATCH_SIZE = 256
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.02
FLIPPED = 0.5  # share of images mirrored; clothes have no handedness
ERASED = 0.4  # share of images with a patch erased


class Residual(nn.Module):
    """Two 3×3 convolutions and a shortcut; halves the image where ``stride`` is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(batch, inputs, h, w)`` to ``(batch, outputs, h/stride, w/stride)``."""
        return F.relu(self.body(images) + self.shortcut(images))


def linear() -> nn.Module:
    """Multinomial logistic regression: the floor of the trade-off."""
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS**2, CLASSES))


def mlp(width: int) -> nn.Module:
    """One hidden layer."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(PIXELS**2, width), nn.ReLU(), nn.Linear(width, CLASSES)
    )


def cnn(width: int) -> nn.Module:
    """Two convolutions with pooling; the second has twice the channels."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)),
        *(nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width)),
        *(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        nn.Linear(2 * width * (PIXELS // 4) ** 2, CLASSES),
    )


def resnet(width: int) -> nn.Module:
    """One residual block at each of three scales."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        Residual(width, width, 1),
        Residual(width, 2 * width, 2),
        Residual(2 * width, 4 * width, 2),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(4 * width, CLASSES),
    )


# name: (architecture, training steps); steps grow with size, so that each size pays
VARIANTS = {
    "linear": (linear, 2_000),
    "mlp-128": (lambda: mlp(128), 4_000),
    "cnn-w16": (lambda: cnn(16), 6_000),
    "cnn-w32": (lambda: cnn(32), 8_000),
    "resnet-w16": (lambda: resnet(16), 8_000),
    "resnet-w32": (lambda: resnet(32), 10_000),
}


class Classifier(nn.Module):
    """A body behind fixed normalisation, so that a deployment is fed plain pixels in [0, 1]."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(batch, 1, 28, 28)`` in [0, 1] to logits ``(batch, 10)``."""
        logits: Tensor = self.body((images - 0.286) / 0.353)  # mean, sd of the training pixels
        return logits


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one gzipped IDX file: images ``(n, 28, 28)`` or labels ``(n,)``, uint8."""
    raw = gzip.decompress(path.read_bytes())
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">u4", dimensions, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def balanced(
    labels: NDArray[np.uint8], count: int, taken: set[bytes], images: NDArray[np.uint8]
) -> list[int]:
    """First ``count / 10`` images of each class whose pixels were not ``taken`` yet."""
    chosen: list[int] = []
    for label in range(CLASSES):
        indices = iter(np.flatnonzero(labels == label))
        of_class = 0
        while of_class < count // CLASSES:
            index = int(next(indices))
            digest = hashlib.sha256(images[index].tobytes()).digest()
            if digest not in taken:
                taken.add(digest)
                chosen.append(index)
                of_class += 1
    return sorted(chosen)


def write_splits(source: Path, out: Path) -> None:
    """Cut the three balanced, disjoint splits and write them as npz."""
    held = read_idx(source / "train-images-idx3-ubyte.gz")[-HELD_OUT:]
    held_labels = read_idx(source / "train-labels-idx1-ubyte.gz")[-HELD_OUT:]
    test = read_idx(source / "t10k-images-idx3-ubyte.gz")
    test_labels = read_idx(source / "t10k-labels-idx1-ubyte.gz")
    taken: set[bytes] = set()
    for split, size in SPLIT_SIZES.items():
        images, labels = (test, test_labels) if split == "report" else (held, held_labels)
        chosen = balanced(labels, size, taken, images)
        np.savez_compressed(
            out / f"{split}.npz", inputs=images[chosen][:, None], labels=labels[chosen]
        )


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, shift by up to 2 pixels and erase a patch; ``(batch, 1, 28, 28)`` in and out."""
    count = len(images)
    flipped = torch.rand(count, generator=generator) < FLIPPED
    images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    padded = F.pad(images, (2, 2, 2, 2))
    shift = torch.randint(0, 5, (count, 2), generator=generator)
    span = torch.arange(PIXELS)
    rows = (shift[:, 0, None] + span)[:, :, None]
    columns = (shift[:, 1, None] + span)[:, None, :]
    shifted = padded[torch.arange(count)[:, None, None], 0, rows, columns]
    size = torch.randint(4, 13, (count, 2), generator=generator)
    corner = (torch.rand(count, 2, generator=generator) * (PIXELS - size)).long()
    inside = (span >= corner[..., None]) & (span < (corner + size)[..., None])
    erased = inside[:, 0, :, None] & inside[:, 1, None, :]
    erased &= (torch.rand(count, generator=generator) < ERASED)[:, None, None]
    return shifted.masked_fill(erased, 0.0)[:, None]


def train(body: nn.Module, images: Tensor, labels: Tensor, *, steps: int, seed: int) -> nn.Module:
    """Train with AdamW under a one-cycle schedule; return the classifier in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    model = Classifier(body).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.2
    )
    convolutional = any(isinstance(part, nn.Conv2d) for part in model.modules())
    for _ in range(steps):
        chosen = torch.randint(0, len(images), (BATCH_SIZE,), generator=generator)
        batch = images[chosen].float() / 255
        if convolutional:  # a model without translation equivariance only loses by it
            batch = augment(batch, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=convolutional):
            loss = F.cross_entropy(model(batch).float(), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def export(model: nn.Module, path: Path) -> None:
    """Write ONNX (opset 18, BatchNorm folded, dynamic batch) without producer-machine details."""
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.to(memory_format=torch.contiguous_format),
            (torch.rand(2, 1, PIXELS, PIXELS),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            input_names=["images"],
            output_names=["logits"],
            opset_version=18,
            verbose=False,
        )
    if program is None:
        message = "torch.onnx.export returned no program"
        raise RuntimeError(message)
    proto = program.model_proto
    strip_metadata(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def strip_metadata(proto: object) -> None:
    """Drop stack traces and source paths that the exporter leaves in every node."""
    graph = proto.graph  # type: ignore[attr-defined]
    del proto.metadata_props[:]  # type: ignore[attr-defined]
    del graph.metadata_props[:], graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def accuracy(model: nn.Module, path: Path) -> float:
    """Top-1 accuracy in [0, 1] on one shipped split."""
    with np.load(path) as split, torch.no_grad():
        images = torch.from_numpy(split["inputs"]).float() / 255
        hits = model(images).argmax(1) == torch.from_numpy(split["labels"])
    return float(hits.float().mean())


def main() -> None:
    """Cut the splits, train the variants, write both with their digests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path("search_spaces/shipped/fashion_mnist"))
    parser.add_argument("--steps", type=int, help="training steps of every variant (smoke runs)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=[*VARIANTS], default=[*VARIANTS])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_splits(arguments.source, arguments.out)
    images = torch.tensor(read_idx(arguments.source / "train-images-idx3-ubyte.gz")[:-HELD_OUT])
    labels = torch.tensor(read_idx(arguments.source / "train-labels-idx1-ubyte.gz")[:-HELD_OUT])
    for name in arguments.only:
        architecture, steps = VARIANTS[name]
        torch.manual_seed(arguments.seed)
        started = time.perf_counter()
        steps = arguments.steps or steps
        model = train(
            architecture(), images[:, None], labels.long(), steps=steps, seed=arguments.seed
        )
        export(model, arguments.out / f"{name}.onnx")
        row = {
            "variant": name,
            "steps": steps,
            "seconds": round(time.perf_counter() - started),
            "search_accuracy": round(accuracy(model, arguments.out / "search.npz"), 4),
            "report_accuracy": round(accuracy(model, arguments.out / "report.npz"), 4),
        }
        print(json.dumps(row), flush=True)
    files = sorted((*arguments.out.glob("*.onnx"), *arguments.out.glob("*.npz")))
    digests = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files]
    (arguments.out / "SHA256SUMS").write_text("\n".join(digests) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
