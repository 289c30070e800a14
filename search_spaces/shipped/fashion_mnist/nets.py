"""The shipped classifiers as torch modules, for spaces of backend ``torch``.

They are what the ONNX files of the same names hold: trained by ``scripts/train_fashion_mnist.py``,
with BatchNorm folded into the convolutions. Their weights lie beside them, put there from the ONNX
files by ``scripts/convert_fashion_mnist.py``. Each takes images ``(batch, 1, 28, 28)`` in [0, 1]
and returns logits ``(batch, 10)``. torch is loaded when a module is made, not before.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

_CLASSES = 10
_MEAN, _SD = 0.286, 0.353  # of the training pixels


def cnn_w16() -> "nn.Module":
    """Two convolutions, 16 and 32 channels."""
    return _cnn(16)


def cnn_w32() -> "nn.Module":
    """Two convolutions, 32 and 64 channels."""
    return _cnn(32)


def resnet_w16() -> "nn.Module":
    """One residual block at each of three scales, 16 to 64 channels."""
    from torch import nn

    width = 16
    return _classifier(
        # the empty places were BatchNorm's, so that weights keep their names
        *(nn.Conv2d(1, width, 3, padding=1), nn.Identity(), nn.ReLU()),
        _residual(width, width, 1),
        _residual(width, 2 * width, 2),
        _residual(2 * width, 4 * width, 2),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(4 * width, _CLASSES),
    )


def _cnn(width: int) -> "nn.Module":
    from torch import nn

    return _classifier(
        *(nn.Conv2d(1, width, 3, padding=1), nn.Identity(), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.Identity(), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten()),
        nn.Linear(2 * width * (28 // 4) ** 2, _CLASSES),
    )


def _classifier(*layers: "nn.Module") -> "nn.Module":
    """Put layers behind fixed normalisation, so that they are fed plain pixels."""
    from torch import nn

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*layers)

        def forward(self, images: "Tensor") -> "Tensor":
            logits: Tensor = self.body((images - _MEAN) / _SD)
            return logits

    return Classifier()


def _residual(inputs: int, outputs: int, stride: int) -> "nn.Module":
    """Make two 3x3 convolutions and a shortcut; they halve the image where ``stride`` is 2."""
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1),
                nn.Identity(),
                nn.ReLU(),
                nn.Conv2d(outputs, outputs, 3, 1, 1),
            )
            self.shortcut: nn.Module = nn.Identity()
            if inputs != outputs:
                self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride))

        def forward(self, images: "Tensor") -> "Tensor":
            return nn.functional.relu(self.body(images) + self.shortcut(images))

    return Residual()
