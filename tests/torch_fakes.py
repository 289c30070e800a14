"""A GPU without a GPU, behind the seam of the ``torch`` backend, and small programs to run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import current_thread
from typing import Any

from trials.backends.torch_card import Card
from trials.backends.torch_cuda import Stream


@dataclass
class FakeStream:
    """Counts how often it was waited for."""

    waits: int = 0

    def synchronize(self) -> None:
        self.waits += 1


@dataclass
class FakeGraph:
    """Does the work at each replay, into the tensors of the first time; or nothing.

    Attributes:
        off: What it adds to each answer, as a part of the largest of them.
    """

    work: Callable[[], Sequence[Any]]
    answers: Sequence[Any]
    is_empty: bool = False
    off: float = 0.0
    replays: int = 0
    is_reset: bool = False

    def replay(self) -> None:
        self.replays += 1
        if not self.is_empty:
            for kept, made in zip(self.answers, [one.clone() for one in self.work()], strict=True):
                kept.copy_(made + self.off * made.abs().max() if self.off else made)

    def reset(self) -> None:
        self.is_reset = True


@dataclass
class FakeCuda:
    """Computes on the CPU what a GPU would, and remembers what it was asked.

    Attributes:
        captures_nothing: Graphs are empty, as of a capture on the wrong stream.
        breaks: What captures raise after the first one; empty for nothing.
        off: What graphs add to each answer, as a part of the largest of them.
        on_it: Tensors that were copied to the device, in order.
        at_home: Tensors in pinned memory, likewise.
        tf32: What was asked for last.
    """

    captures_nothing: bool = False
    breaks: str = ""
    off: float = 0.0
    streams: list[FakeStream] = field(default_factory=list)
    graphs: list[FakeGraph] = field(default_factory=list)
    on_it: list[Any] = field(default_factory=list)
    at_home: list[Any] = field(default_factory=list)
    held_bytes: int = 0
    tf32: bool | None = None
    entered: dict[str, FakeStream] = field(default_factory=dict)

    def stream(self) -> FakeStream:
        self.streams.append(FakeStream())
        return self.streams[-1]

    @contextmanager
    def current(self, stream: Stream) -> Iterator[None]:
        assert isinstance(stream, FakeStream)
        self.entered[current_thread().name] = stream
        try:
            yield
        finally:
            del self.entered[current_thread().name]

    def on_device(self, tensor: Any) -> Any:
        self.held_bytes += tensor.nbytes
        self.on_it.append(tensor.clone())
        return self.on_it[-1]

    def pinned(self, tensor: Any) -> Any:
        self.at_home.append(tensor.clone())
        return self.at_home[-1]

    def pool(self) -> object:
        return object()

    def graph(self, work: Callable[[], Sequence[Any]], pool: object) -> FakeGraph:
        del pool
        assert current_thread().name in self.entered, "captured on no stream of ours"
        if self.breaks and self.graphs:
            raise RuntimeError(self.breaks)
        answers = [one.clone() for one in work()] if self.captures_nothing else work()
        self.graphs.append(
            FakeGraph(work=work, answers=answers, is_empty=self.captures_nothing, off=self.off)
        )
        return self.graphs[-1]

    def use_tf32(self, *, allowed: bool) -> None:
        self.tf32 = allowed

    def release(self) -> None:
        self.held_bytes = 0

    def peak_bytes(self) -> int:
        return self.held_bytes


def fake_card(cuda: FakeCuda | None = None, *, capability: int = 90) -> Card:
    """Make a GPU whose memory is that of the CPU."""
    return Card(
        device="cpu",
        name="Fake GPU",
        capability=capability,
        runtime="13.0",
        cuda=cuda or FakeCuda(),
    )


def residual_module() -> Any:
    """Make a residual block with batch normalization and a classifier of 5, seeded."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
            )
            self.body = nn.Conv2d(8, 8, 3, padding=1)
            self.head = nn.Linear(8, 5)

        def forward(self, images: Any) -> Any:
            stem = self.stem(images)
            return self.head(torch.relu(stem + self.body(stem)).mean((2, 3)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Residual().train()
        module(torch.rand(16, 3, 8, 8) * 3)  # statistics that normalize something
    return module.eval()


def residual_program(folder: Path) -> Path:
    """Write that block as a program; returns its path."""
    path = folder / "residual.pt2"
    path.write_bytes(_residual_content())
    return path


@cache
def _residual_content() -> bytes:
    from trials.models.torch_program import exported, write_program

    with TemporaryDirectory() as folder:
        path = Path(folder) / "residual.pt2"
        write_program(exported(residual_module(), shape=(3, 8, 8), dtype="float32"), path)
        return path.read_bytes()
