"""How nnU-Net finds our classes.

nnU-Net looks for classes by name inside its own folders only. A ``.pth`` file (of ``setup.py``) calls :func:`install`
at every start of Python, spawned workers included; as soon as nnU-Net imports what ``wrapping.py`` names, that is
wrapped. So that this costs nothing elsewhere, this module imports nothing that Python has not imported.
"""

import os
import sys

SWITCH = "NNUNET_CMC_HOOK"  # "0" turns the hook off
WRAPPED = (  # modules of nnU-Net that ``wrapping.py`` knows
    "nnunetv2.utilities.find_class_by_name",
    "nnunetv2.utilities.utils",
    "nnunetv2.inference.predict_from_raw_data",
)


class _Finder:
    """A meta path finder for the modules of :data:`WRAPPED` alone; it leaves the finding to the others."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname not in WRAPPED:
            return None
        for finder in sys.meta_path:
            if finder is _Finder or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                _wrap_after_execution(spec.loader)
                return spec
        return None


def _wrap_after_execution(loader):
    def exec_module(module):
        execute(module)
        if module.__name__ in WRAPPED:  # some loaders, of zip files for one, serve many modules
            _wrap(module)

    try:
        execute = loader.exec_module
        loader.exec_module = exec_module
    except AttributeError:  # a loader that cannot be extended: nnU-Net stays as it is, `nnunet_cmc doctor` tells
        pass


def _wrap(module):
    from nnunet_cmc.nnunet_hook.wrapping import wrap

    wrap(module)


def install() -> None:
    """Put the hook in place, once; without effect where the environment says ``NNUNET_CMC_HOOK=0``."""
    if os.environ.get(SWITCH) == "0" or _Finder in sys.meta_path:
        return
    sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]
    for name in WRAPPED:
        if name in sys.modules:
            _wrap(sys.modules[name])
