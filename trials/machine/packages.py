"""Versions of installed packages, by the name that a module is known by."""

from importlib.metadata import PackageNotFoundError, version

_ALSO_FROM = {"onnxruntime": "onnxruntime-gpu"}  # the same module, installed in its place


def installed_version(name: str) -> str | None:
    """Return the version of a package, or of the one that stands in for it; None without."""
    for package in (name, _ALSO_FROM.get(name)):
        try:
            if package is not None:
                return version(package)
        except PackageNotFoundError:
            continue
    return None


def onnxruntime_version() -> str:
    """Return the version of ONNX Runtime, whichever of its packages brought it.

    Raises:
        PackageNotFoundError: None of them is installed, so that ours is not whole.
    """
    found = installed_version("onnxruntime")
    if found is None:
        raise PackageNotFoundError("onnxruntime")
    return found
