"""The one thing that ``pyproject.toml`` cannot say: the package ships a ``.pth`` file.

It puts the hook of ``nnunet_cmc/nnunet_hook/hook.py`` in place at every start of Python. A wheel gets it from
``build_py``, an editable install from ``editable_wheel``; everything else about the package is in ``pyproject.toml``.
"""

import base64
import hashlib
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

# Python runs .pth files in alphabetical order: "__editable__..." (makes an editable package importable), then ours.
PTH_NAME = "nnunet_cmc_hook.pth"
# Nothing may break a Python that has nothing to do with us: any failure, such as a package that is gone, is passed
# over (`nnunet_cmc doctor` is the place that tells), and exec() with its own {} leaves no name behind.
PTH_LINE = (
    'import sys; exec("try:\\n from nnunet_cmc.nnunet_hook.hook import install\\n install()\\n'
    'except Exception: pass", {})\n'
)


class BuildPyWithHook(build_py):
    def run(self):
        super().run()
        Path(self.build_lib).mkdir(parents=True, exist_ok=True)
        Path(self.build_lib, PTH_NAME).write_text(PTH_LINE)

    def get_outputs(self, include_bytecode=1):
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib, PTH_NAME))]


class EditableWheelWithHook(editable_wheel):
    def run(self):
        super().run()
        for wheel in Path(self.dist_dir).glob("nnunet_cmc-*editable*.whl"):
            add_hook(wheel)


def add_hook(wheel: Path) -> None:
    """Add the ``.pth`` file to a finished wheel and to its RECORD, which makes every installer remove it again."""
    with ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    digest = base64.urlsafe_b64encode(hashlib.sha256(PTH_LINE.encode()).digest()).rstrip(b"=").decode()
    record = next(name for name in contents if name.endswith(".dist-info/RECORD"))
    contents[record] += f"{PTH_NAME},sha256={digest},{len(PTH_LINE)}\n".encode()
    with ZipFile(wheel, "w", ZIP_DEFLATED) as archive:
        for name, content in {PTH_NAME: PTH_LINE.encode(), **contents}.items():
            archive.writestr(name, content)


setup(cmdclass={"build_py": BuildPyWithHook, "editable_wheel": EditableWheelWithHook})
