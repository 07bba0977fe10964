"""What is theirs (nnU-Net and what it requires) and what is ours, for the tests of what we rely on in nnU-Net."""

import ast
import importlib
import importlib.metadata
import inspect
import textwrap
from functools import cache

import pytest
from source_files import modules

VERSION = importlib.metadata.version("nnunetv2")
THEIRS = ("nnunetv2", "batchgenerators", "batchgeneratorsv2", "acvl_utils", "dynamic_network_architectures")
TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer:nnUNetTrainer"


def find(path: str):
    module, _, name = path.partition(":")
    try:
        thing = importlib.import_module(module)
        for part in name.split("."):
            thing = getattr(thing, part)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"nnunetv2 {VERSION} has no {path} any more ({error}): it moved, or went.", pytrace=False)
    return thing


def parameters(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def is_theirs(module: str) -> bool:
    return module.partition(".")[0] in THEIRS


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_self(node: ast.AST) -> bool:
    return ast.unparse(node) in ("self", "cls", "super()")


def nodes(kind, *trees: ast.AST) -> list:
    """Return the nodes of a kind in ``trees``, or in all our modules."""
    return [node for tree in trees or modules().values() for node in ast.walk(tree) if isinstance(node, kind)]


@cache
def own_names(cls: type) -> set[str]:
    """Return what ``cls`` itself defines: attributes of the class, and what its methods assign to ``self``."""
    if cls.__module__ == "builtins":
        return set(dir(cls))
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    assigned = {node.attr for node in nodes(ast.Attribute, tree) if isinstance(node.ctx, ast.Store)}
    return {*vars(cls), *vars(cls).get("__annotations__", {}), *assigned}


def all_names(cls: type) -> set[str]:
    return set().union(*map(own_names, cls.__mro__))


@cache
def our_subclasses() -> list[tuple[type, type, ast.ClassDef]]:
    """Return our classes that inherit from theirs: the class, the nearest base of theirs, the source."""
    found = []
    for name, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                cls = getattr(importlib.import_module(name), node.name)
                if base := next((base for base in cls.__mro__ if is_theirs(base.__module__)), None):
                    found.append((cls, base, node))
    return found


def path_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__name__}"
