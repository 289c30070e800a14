"""The shipped classifiers as torch modules, for spaces of backend ``torch``.

They are what the ONNX files of the same names hold: trained by ``scripts/train_fashion_mnist.py``,
with BatchNorm folded into the convolutions. Their weights lie beside them, put there from the ONNX
files by ``scripts/convert_fashion_mnist.py``.
"""

from torch import Tensor, nn

CLASSES = 10
_MEAN, _SD = 0.286, 0.353  # of the training pixels in [0, 1]


class Classifier(nn.Module):
    """A body behind fixed normalisation, fed plain pixels in [0, 1]."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(batch, 1, 28, 28)`` in [0, 1] to logits ``(batch, 10)``."""
        logits: Tensor = self.body((images - _MEAN) / _SD)
        return logits


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut; halves the image where ``stride`` is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        # the empty places were BatchNorm's, so that weights keep their names
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1),
            nn.Identity(),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride))

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(batch, inputs, h, w)`` to ``(batch, outputs, h/stride, w/stride)``."""
        return nn.functional.relu(self.body(images) + self.shortcut(images))


def cnn_w16() -> nn.Module:
    """Two convolutions, 16 and 32 channels."""
    return _cnn(16)


def cnn_w32() -> nn.Module:
    """Two convolutions, 32 and 64 channels."""
    return _cnn(32)


def resnet_w16() -> nn.Module:
    """One residual block at each of three scales, 16 to 64 channels."""
    width = 16
    return Classifier(
        nn.Sequential(
            *(nn.Conv2d(1, width, 3, padding=1), nn.Identity(), nn.ReLU()),
            Residual(width, width, 1),
            Residual(width, 2 * width, 2),
            Residual(2 * width, 4 * width, 2),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(4 * width, CLASSES),
        )
    )


def _cnn(width: int) -> nn.Module:
    return Classifier(
        nn.Sequential(
            *(nn.Conv2d(1, width, 3, padding=1), nn.Identity(), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.Identity(), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Flatten()),
            nn.Linear(2 * width * (28 // 4) ** 2, CLASSES),
        )
    )
