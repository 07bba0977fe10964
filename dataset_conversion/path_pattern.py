"""Paths in which ``*`` stand for a scan's name, as in the layouts of BraTS and BIDS.

Where there are several ``*``, they stand for the same text, as in ``*/*_t1.nii.gz``. If what stands before them in the
path is the same for some and differs for others, as in ``sub-*/ses-*/anat/sub-*_ses-*_T1w.nii.gz``, those after the
same words stand for the same text; after BIDS's ``sub-`` and ``ses-`` they always do. The name is these texts, joined
by ``_``; the first that stands more than once, or else the first, is the subject's.
"""

import glob
import re
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
        before = [re.split(r"[/_]", literal)[-1] for literal in self.literals[:-1]]  # from the last / or _
        different = list(dict.fromkeys(before))
        entities = all(re.fullmatch("[a-z]+-", words) for words in before)  # of BIDS, which name what follows
        if len(different) == len(before) and not entities:  # which tells nothing apart
            before, different = [""] * len(before), [""]
        self.variables = [different.index(words) for words in before]

    def paths(self) -> Iterator[Path]:
        """List the matching paths in the order of names."""
        *before, last = self.literals
        yield from map(Path, sorted(glob.glob("*".join([*map(glob.escape, before), case_insensitive_pattern(last)]))))

    def name_and_subject(self, path: Path, suffix: str) -> tuple[str, str]:
        """Return the name of the scan at ``path``, without ``suffix`` where the pattern ends in ``*``, and its subject.

        ValueError: a ``*`` stands for nothing, or two for different texts.
        """
        text = str(path) if self.literals[-1] else str(path).removesuffix(suffix)
        expression, seen = re.escape(self.literals[0]), set()
        for variable, literal in zip(self.variables, self.literals[1:], strict=True):
            expression += f"(?P=_{variable})" if variable in seen else f"(?P<_{variable}>[^/]*)"
            expression += f"(?i:{re.escape(literal)})"  # endings may be in capitals
            seen.add(variable)
        if not (match := re.fullmatch(expression, text)):
            raise ValueError(
                f"The * of {self.source} stand for different texts in {path}: give a path in which they stand for the "
                "same, or list the scans in a table (--table)."
            )
        texts = match.groups()
        if "" in texts:
            raise ValueError(
                f"The * of {self.source} stands for nothing in {path}: put it where the scans' names differ, "
                "or list the scans in a table (--table)."
            )
        repeated = [text for variable, text in enumerate(texts) if self.variables.count(variable) > 1]
        return "_".join(texts), (repeated or texts)[0]
