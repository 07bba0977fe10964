"""HTML pages from the templates in ``nnunet_cmc/evaluation/templates``."""

from base64 import b64encode
from os import PathLike
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nnunet_cmc.utils.files import write_text


def write_page(file: str | PathLike, template: str, **values: Any) -> None:
    """Write a page in UTF-8; text in ``values`` is escaped.

    Args:
        template: name of the template without its ending ``.html.j2``.
        values: for the template; in it, the filter ``base64`` gives the content of a file.
    """
    environment = Environment(
        loader=PackageLoader("nnunet_cmc.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda path: b64encode(Path(path).read_bytes()).decode()
    write_text(file, environment.get_template(f"{template}.html.j2").render(values))
