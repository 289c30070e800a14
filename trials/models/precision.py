"""Convert a model to a precision: the arithmetic lives in the ONNX file, not in a builder flag.

One recipe per precision (``recipes``), made so that every backend can build the result. No input
file is touched. The result is one self-contained file, checked, and put in place at once. Layers
that are named stay in fp32, so that a precision is a dial and not a switch.
"""

import logging
import shutil
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from search_spaces.deployment import Precision
from trials.backend import Tensors
from trials.errors import MemoryLimitError, TrialError, UnsupportedError
from trials.machine.packages import onnxruntime_version
from trials.models.layers import Product
from trials.models.onnx_graph import external_files
from trials.models.onnx_model import one_line, read_model
from trials.models.recipes import CALIBRATED, RECIPES, Lowering

if TYPE_CHECKING:
    from onnx import ModelProto

_RECIPE = "2"  # raise it when a recipe changes: kept conversions are made anew
_WARNING, _ERROR = 2, 3  # log severities of ONNX Runtime; the first is its default


def needs_calibration(precision: Precision) -> bool:
    """Tell whether a conversion to it looks at calibration samples."""
    return precision in CALIBRATED


def keeps_file(precision: Precision) -> bool:
    """Tell whether a model of this precision is the file as it is: fp32 and tf32.

    The builder may round the products of tf32.
    """
    return precision not in RECIPES


def converter_versions(precision: Precision) -> tuple[tuple[str, str], ...]:
    """Return everything besides model and samples that changes a converted model."""
    if keeps_file(precision):
        return ()
    return (
        ("onnx", version("onnx")),
        ("onnxruntime", onnxruntime_version()),
        ("recipe", _RECIPE),
    )


def write_as_it_is(model: Path, out: Path) -> None:
    """Write a self-contained copy of a model, for the precisions that keep the file.

    Args:
        model: A checked ONNX file; never touched.
        out: Appears complete or not at all.

    Raises:
        ModelError: Its external data are gone.
    """
    import onnx

    with TemporaryDirectory(dir=out.parent, prefix=".convert-") as folder:
        made = Path(folder) / "converted.onnx"
        if external_files(read_model(model), model):
            onnx.save_model(onnx.load_model(model), made)  # inlines the external data
        else:
            shutil.copyfile(model, made)
        made.replace(out)


class OpenedLowering:
    """A model and a precision: which layers it lowers, and what it looks like without some.

    What is costly (folding, calibrating) is done once, when it is opened.
    """

    def __init__(
        self, model: Path, precision: Precision, *, calibration: Sequence[Tensors]
    ) -> None:
        """Look at the model.

        Args:
            model: A checked ONNX file; never touched.
            precision: One that changes the file.
            calibration: Batches by input name, for the precisions that need them.

        Raises:
            UnsupportedError: The precision cannot be made of this model.
            MemoryLimitError: It needs more memory than there is.
        """
        self._model, self._precision = model, precision
        with (
            TemporaryDirectory(prefix="trifront-lower-") as folder,
            explained(model, precision),
            _silenced(),
        ):
            self._lowering: Lowering = RECIPES[precision](model, Path(folder), calibration)

    @property
    def layers(self) -> tuple[Product, ...]:
        """The layers that the precision lowers, in the order of execution."""
        return self._lowering.layers

    def keeping(self, kept: Collection[str]) -> "ModelProto":
        """Make the lowered model with some layers kept in fp32.

        Raises:
            UnsupportedError: It cannot be made.
            MemoryLimitError: It needs more memory than there is.
        """
        unknown = sorted(set(kept) - {layer.name for layer in self.layers})
        assert not unknown, f"no layers of the model: {unknown}"
        with explained(self._model, self._precision), _silenced():
            return self._lowering.keeping(kept)

    def write(self, out: Path, kept: Collection[str]) -> None:
        """Write the lowered model with some layers kept in fp32; complete or not at all.

        Raises:
            UnsupportedError: It cannot be made.
            MemoryLimitError: It needs more memory than there is.
        """
        import onnx

        lowered = self.keeping(kept)
        with TemporaryDirectory(dir=out.parent, prefix=".convert-") as folder:
            made = Path(folder) / "converted.onnx"
            with explained(self._model, self._precision):
                # types alone: a shape that the original declares wrongly is not the converter's
                onnx.shape_inference.infer_shapes(lowered, check_type=True)
                onnx.save_model(lowered, made)
                onnx.checker.check_model(made)
            made.replace(out)


@contextmanager
def explained(model: Path, precision: Precision) -> Iterator[None]:
    """Map whatever converters stumble over to one line that names the model."""
    try:
        yield
    except UnsupportedError as error:
        raise UnsupportedError(f"{model.name}: {error}") from error
    except (TrialError, OSError):
        raise
    except MemoryError as error:
        raise MemoryLimitError(
            f"{model.name}: converting to {precision.value} needs more memory than there is"
        ) from error
    except Exception as error:  # the converters raise whatever they stumble over
        raise UnsupportedError(
            f"{model.name}: cannot be converted to {precision.value} "
            f"({type(error).__name__}: {one_line(str(error))}); leave this precision out"
        ) from error


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep the converters' advice off the terminal; what matters they raise.

    They print, warn and log on the root logger, which would also install a handler on it.
    """
    import onnxruntime

    silent = logging.NullHandler()
    disabled = logging.root.manager.disable
    logging.root.addHandler(silent)
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
        logging.disable(disabled)
        logging.root.removeHandler(silent)
