"""Packages that are not always there: the one message that says what needs one and how it is installed.

csmae-hf itself is on no package index, so its extras can be named in a clone alone; the packages can be installed from anywhere.
"""

REQUIREMENTS: dict[str, str] = {
    "faiss": "faiss-cpu>=1.11",
    "gradio": "gradio>=6.31,<7",
    "matplotlib": "matplotlib>=3.8",
    "milvus_lite": "milvus-lite>=2.5",
    "mteb": "mteb>=2.26",
    "pymilvus": "pymilvus>=2.5",
    "rasterio": "rasterio>=1.3",
    "shapely": "shapely>=2.0",
    "sklearn": "scikit-learn>=1.4",
}
"""What pip installs for each module, as the extras of `setup.cfg` have it."""


def needs_package(what: str, module: str, error: Exception) -> ImportError:
    """Make the error of something that cannot be done without an optional package.

    Args:
        what: What was to be done, the beginning of a sentence, such as "Drawing figures".
        module: Name by which the package is imported, a key of `REQUIREMENTS`.
        error: Why it could not be used; told where the package is there and broken.

    Returns:
        The error to raise, with the command that installs the package.
    """
    requirement = REQUIREMENTS[module]
    absent = not isinstance(error, ImportError) or (isinstance(error, ModuleNotFoundError) and error.name == module)
    broken = "" if absent else f" (the one that is installed cannot be imported: {error})"
    return ImportError(f"{what} needs {requirement.partition('>')[0]}: pip install '{requirement}'{broken}")
