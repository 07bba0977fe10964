"""Paths in which ``*`` stand for a scan's name, as in the layouts of BraTS and BIDS.

The words before the ``*`` (from the last ``/`` or ``_`` on) tell what they stand for. After different words, as in
``patient*/visit*/ct.nii.gz``, each text is a part of the name, joined by ``_``. After the same words, as in
``sub-*/ses-*/anat/sub-*_ses-*_T1w.nii.gz``, ``*`` stand for one text, which counts once. The first text that stands
more than once, or else the first, is the subject. Where all words are the same, as in ``*/*_t1.nii.gz`` and
``*/*/ct.nii.gz``, one text that fits all ``*`` is the name; otherwise each text is a part of it.
"""

import glob
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from nnunet_cmc.dataset_conversion.volume import case_insensitive_pattern


class PathPattern:
    """A path with ``*``, none of which matches a ``/``. ValueError: two ``*`` follow each other."""

    def __init__(self, source: str | Path):
        self.source = source
        self.literals = str(Path(source)).split("*")
        if "" in self.literals[1:-1]:
            raise ValueError(
                f"{source} has ** in it: put one * for each folder and file that is named so, or list the scans in a "
                "table (--table)."
            )
        words = [re.split(r"[/_]", literal)[-1] for literal in self.literals[:-1]]
        different = list(dict.fromkeys(words))
        grouped = tuple(different.index(own) for own in words)
        entities = all(re.fullmatch("[A-Za-z]+-", own) for own in words)  # of BIDS, which name what follows
        telling = len(different) > 1 or entities
        self.readings = [grouped] if telling else [(0,) * len(words), tuple(range(len(words)))]
        self.read: dict[tuple[int, ...], Path] = {}  # the first path of each reading

    def paths(self) -> Iterator[Path]:
        """List the matching paths in the order of names."""
        *before, last = self.literals
        yield from map(Path, sorted(glob.glob("*".join([*map(glob.escape, before), case_insensitive_pattern(last)]))))

    def name_and_subject(self, path: Path, suffix: str) -> tuple[str, str]:
        """Return the name of the scan at ``path``, without ``suffix`` where the pattern ends in ``*``, and its subject.

        ValueError: a ``*`` stands for nothing; or two for different texts, though they follow the same words, and stand
        for one text in other paths or the pattern has other words, too.
        """
        text = str(path) if self.literals[-1] else str(path).removesuffix(suffix)
        for variables in self.readings:
            if match := self._match(variables, text):
                break
        else:
            raise self._different(str(path))
        texts = [unicodedata.normalize("NFC", text) for text in match.groups()]
        if "" in texts:
            raise ValueError(
                f"The * of {self.source} stands for nothing in {path}: put it where the scans' names differ, "
                "or list the scans in a table (--table)."
            )
        self.read.setdefault(variables, path)
        if len(self.read) > 1:
            one, several = map(self.read.get, self.readings)
            raise self._different(f"{several}, but for one text in {one}")
        repeated = [text for variable, text in enumerate(texts) if variables.count(variable) > 1]
        return "_".join(texts), (repeated or texts)[0]

    def _match(self, variables: tuple[int, ...], text: str) -> re.Match[str] | None:
        """Match ``text`` with ``*`` of one variable standing for one text; a group for each variable."""
        expression, seen = re.escape(self.literals[0]), set()
        for variable, literal in zip(variables, self.literals[1:], strict=True):
            expression += f"(?P=_{variable})" if variable in seen else f"(?P<_{variable}>[^/]*)"
            expression += f"(?i:{re.escape(literal)})"  # endings may be in capitals
            seen.add(variable)
        return re.fullmatch(expression, text)

    def _different(self, where: str) -> ValueError:
        return ValueError(
            f"The * of {self.source} stand for different texts in {where}: give a path in which they stand for the "
            "same or follow different words, as in patient*/visit*, or list the scans in a table (--table)."
        )
