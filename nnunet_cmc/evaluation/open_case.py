"""Open a case of the page beside this file in ITK-SNAP, 3D Slicer or napari.

python open_case.py CASE                   its scans, label and predictions, in the first of the three that is found
python open_case.py CASE --viewer slicer   in this one: itksnap, slicer or napari, or the path of ITK-SNAP or 3D Slicer
python open_case.py                        show the page in a browser; there, the links of the cases open the viewer

It needs only Python; napari must be installed in the Python that runs it, with SimpleITK.
"""

import argparse
import json
import shutil
import subprocess
import sys
import webbrowser
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

HERE = Path(__file__).resolve().parent
PROGRAMS = {
    "itksnap": ("itksnap", "ITK-SNAP", "/Applications/ITK-SNAP.app/Contents/MacOS/ITK-SNAP"),
    "slicer": ("Slicer", "/Applications/Slicer.app/Contents/MacOS/Slicer"),
    "napari": (sys.executable,) if find_spec("napari") else (),
}
SLICER = """
for name, file in {scans!r}.items():
    slicer.util.loadVolume(file, {{"name": name}})
for name, file in {labels!r}.items():
    slicer.util.loadSegmentation(file, {{"name": name}})
"""
NAPARI = """
import napari, SimpleITK
def read(file):
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(file), "LPS")
    return SimpleITK.GetArrayFromImage(image), image.GetSpacing()[::-1]
viewer = napari.Viewer()
for name, file in {scans!r}.items():
    voxels, spacing = read(file)
    viewer.add_image(voxels, name=name, scale=spacing)
for name, file in {labels!r}.items():
    voxels, spacing = read(file)
    viewer.add_labels(voxels.astype("int32"), name=name, scale=spacing)
napari.run()
"""


def find_program(viewer=None):
    """Return the kind and the path of a viewer: the named one, or the first that is there. ValueError: none is."""
    kinds = [kind for kind in PROGRAMS if viewer in (None, kind)]
    for kind in kinds:
        for program in PROGRAMS[kind]:
            if found := shutil.which(program):
                return kind, found
    if viewer and not kinds and (found := shutil.which(viewer)):
        return "slicer" if "slicer" in Path(found).name.lower() else "itksnap", found
    raise ValueError(f"There is no {viewer or ', '.join(PROGRAMS)} here: install it, or name a program with --viewer.")


def command_of(kind, program, scans, labels):
    """Return the command that opens files by their names."""
    if kind == "slicer":
        return [program, "--python-code", SLICER.format(scans=scans, labels=labels)]
    if kind == "napari":
        return [program, "-c", NAPARI.format(scans=scans, labels=labels)]
    main, *others = scans.values()
    more = (["-o", *others] if others else []) + (["-s", *labels.values()] if labels else [])
    return [program, "-g", main, *more]


def open_case(cases, name, viewer=None):
    """Start a viewer with the files of a case. ValueError: no such case, file, or viewer."""
    if name not in cases:
        raise ValueError(f"There is no case {name}: name one of {', '.join(cases)}.")
    files = cases[name]
    for file in (*files["scans"].values(), *files["labels"].values()):
        if not Path(file).exists():
            raise ValueError(f"Case {name}: there is no {file}: make the page again where the scans are.")
    kind, program = find_program(viewer)
    return subprocess.Popen(command_of(kind, program, files["scans"], files["labels"]))


class Handler(SimpleHTTPRequestHandler):
    """Serve the folder of the page to this computer alone, and open a case at POST /open/CASE from it."""

    server: ThreadingHTTPServer

    def __init__(self, cases, viewer, *args, **options):
        self.cases, self.viewer = cases, viewer
        super().__init__(*args, directory=str(HERE), **options)

    def _own(self):
        """Tell whether the page asks, and not another site whose name leads to this computer."""
        host = f"127.0.0.1:{self.server.server_port}"
        return self.headers.get("Host") == host and self.headers.get("Origin", f"http://{host}") == f"http://{host}"

    def send_head(self):
        if not self._own():
            return self.send_error(403)
        return super().send_head()

    def do_POST(self):
        if not self._own() or not self.path.startswith("/open/"):
            return self.send_error(403)
        try:
            open_case(self.cases, unquote(self.path.removeprefix("/open/")), self.viewer)
            status, text = 200, ""
        except (ValueError, OSError) as error:
            status, text = 500, str(error)
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def main():
    """Open the case that the command line names, or serve the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?")
    parser.add_argument("--viewer", help="itksnap, slicer or napari, or a program; default: the first that is found")
    arguments = parser.parse_args()
    content = json.loads((HERE / "open_case.json").read_text(encoding="utf-8"))
    try:
        if arguments.case is not None:
            open_case(content["cases"], arguments.case, arguments.viewer)
            return
        find_program(arguments.viewer)
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")
    handler = partial(Handler, content["cases"], arguments.viewer)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/{content['page']}"
        print(f"{address} (Ctrl-C ends it)", flush=True)
        webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
