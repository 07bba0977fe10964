"""The package's own source files, for tests that read them instead of running them."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("nnunet_cmc", "dataset_conversion", "planners", "trainers")
BUILD_FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt")
"""What builds the package, besides the folders of its sources."""


def files() -> dict[str, Path]:
    """Return the source file of every module of the package, by its dotted name."""
    found = {}
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "nnunet_cmc" else ("nnunet_cmc", *parts)
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


@cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module of the package, by its dotted name."""
    return {name: ast.parse(file.read_text(encoding="utf-8"), str(file)) for name, file in files().items()}


def imports(tree: ast.AST) -> list[tuple[str, str, str]]:
    """Return what ``tree`` imports, at any depth: local name, module, and the name in that module ("" for itself)."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.asname or alias.name, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports are absolute"
            found += [(alias.asname or alias.name, node.module, alias.name) for alias in node.names]
    return found
