"""A comparison as the table of a paper: a row per prediction, per modality its classes and their average."""

from collections.abc import Sequence
from itertools import product
from math import isnan
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from nnunet_cmc.evaluation.paired_statistics import CONFIDENCE, LACKING, REPORTED_METRICS, Cell, Comparison, PairedTest
from nnunet_cmc.evaluation.tables import MARK, MARK_NOTE, aligned, named_remarks, save_summary, save_summary_csv
from nnunet_cmc.utils.files import write_json, write_text

TITLES = {"Dice": "Dice [%]", "ASSD": "ASSD [mm]"}
_BETTER = {"Dice": max, "ASSD": min}
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def number(metric: str, value: float, sign: str = "") -> str:
    """Format a value for the table: Dice in percent, mm with two decimals; ``sign="+"`` for differences."""
    if isnan(value):
        return "-"
    return f"{100 * value:{sign}.1f}" if metric == "Dice" else f"{value:{sign}.2f}"


def cell_text(metric: str, cell: Cell) -> str:
    """Format ``mean ± std``, marked where the mean leaves out cases in which the metric is undefined."""
    spread = "" if isnan(cell.std) else f" ± {number(metric, cell.std)}"
    return f"{number(metric, cell.mean)}{spread}{MARK if cell.undefined else ''}"


def best(comparison: Comparison, group: str, metric: str, column: str) -> set[str]:
    """Return the predictions with the best mean as shown, without those whose mean leaves out cases."""
    cells = {name: comparison.cells[name, group, metric, column] for name in comparison.names}
    values = {name: round(cell.mean, 3 if metric == "Dice" else 2) for name, cell in cells.items()}
    defined = [value for value in values.values() if not isnan(value)]
    if len(cells) < 2 or not defined:
        return set()
    return {name for name in cells if values[name] == _BETTER[metric](defined) and not cells[name].undefined}


class TableCell(NamedTuple):
    text: str
    best: bool  # of its column


def table_rows(comparison: Comparison, metric: str) -> list[tuple[str, list[TableCell]]]:
    """Return a row per prediction: its name, and the cells of all columns of all groups; last those without numbers."""
    columns = [(group, metric, column) for group in comparison.groups for column in comparison.columns]
    winners = {column: best(comparison, *column) for column in columns}
    rows = [
        (name, [TableCell(cell_text(metric, comparison.cells[(name, *key)]), name in winners[key]) for key in columns])
        for name in comparison.names
    ]
    return [*rows, *((name, [TableCell("-", False)] * len(columns)) for name in comparison.missing)]


def notes(comparison: Comparison) -> list[str]:
    """Return the notes below the table, a sentence each."""
    first = next(iter(comparison.evaluations.values()))
    groups = ", ".join(f"{group}: {len(first.of_group(group))}" for group in comparison.groups)
    lines = [f"Mean ± standard deviation over cases ({groups})."]
    if any(cell.undefined for cell in comparison.cells.values()):
        lines.append(MARK_NOTE)
    fewer = []
    for group, column in product(comparison.groups, comparison.classes):
        every = len(first.of_group(group))
        evaluated = sorted({comparison.cells[name, group, "Dice", column].n for name in comparison.names})
        if evaluated[0] < every:
            ends = " to ".join(map(str, dict.fromkeys((evaluated[0], evaluated[-1]))))
            fewer.append(f"{group} {column} is in {ends} of {every}")
    if fewer:
        lines.append(
            f"Where neither reference nor prediction has a class, it is not evaluated: {', '.join(fewer)} cases."
        )
    lines += comparison.remarks
    return lines + [f"{name} has no result: {reason}" for name, reason in comparison.missing.items()]


class Averages(NamedTuple):
    """A table of the averages over classes; its first three columns are text."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def averages(comparison: Comparison) -> Averages:
    """Return the average over classes with its interval, and of several predictions their tests against the first."""
    header = ["modality", "metric", "prediction", "mean", "interval"]
    notes = [
        f"Interval: {100 * CONFIDENCE:g} %, percentile bootstrap over subjects; draws that lack a class are left out."
    ]
    several = len(comparison.names) > 1
    if several:
        header += ["difference", "p", "subjects"]
        notes.append(
            f"Difference to {comparison.names[0]}: mean over subjects, of the cases and classes that both predictions "
            "have; so it may differ from the difference of the two means. p: two-sided Wilcoxon signed-rank test of "
            "these differences, not corrected for multiple tests."
        )
    rows, marked = [], False
    for group, metric, name in product(comparison.groups, REPORTED_METRICS, comparison.names):
        key = (name, group, metric, comparison.columns[-1])
        cell = comparison.cells[key]
        interval = "-" if isnan(cell.low) else f"{number(metric, cell.low)} to {number(metric, cell.high)}"
        tested = _test(metric, comparison.tests.get(key)) if several else []
        mean = number(metric, cell.mean) + MARK * bool(cell.undefined)
        rows.append([group, TITLES[metric], name, mean, interval, *tested])
        marked |= bool(cell.undefined)
    if marked:
        notes.append(MARK_NOTE)
    if any(row[4] == "-" for row in rows):
        notes.append(
            f"No interval (-): only one subject has a class, or so few have them that more than {100 * LACKING:g} % of "
            "the draws would be left out."
        )
    title = "Average over classes" if len(comparison.classes) > 1 else comparison.classes[0]
    return Averages(title, header, rows, notes)


def _test(metric: str, test: PairedTest | None) -> list[str]:
    if test is None:
        return ["", "", ""]
    p = "-" if isnan(test.p) else "< 0.001" if test.p < 0.001 else f"{test.p:.3f}"
    return [number(metric, test.difference, "+"), p, str(test.n)]


def to_markdown(comparison: Comparison) -> str:
    """Format tables of Dice and ASSD, and one of intervals and tests, as Markdown."""
    columns = [f"{group}: {column}" for group in comparison.groups for column in comparison.columns]
    parts = []
    for metric in REPORTED_METRICS:
        rows = [
            [name, *(f"**{cell.text}**" if cell.best else cell.text for cell in cells)]
            for name, cells in table_rows(comparison, metric)
        ]
        parts.append(f"## {TITLES[metric]}\n\n{_markdown_table(['prediction', *columns], rows)}")
    parts.append("  \n".join(notes(comparison)))
    return "\n\n".join([*parts, averages_markdown(comparison)]) + "\n"


def averages_markdown(comparison: Comparison) -> str:
    """Format the table of :func:`averages` with its title and notes as Markdown."""
    title, header, rows, lines = averages(comparison)
    return f"## {title}\n\n{_markdown_table(header, rows)}\n\n" + "  \n".join(lines)


def to_screen(comparison: Comparison) -> str:
    """Format what a command prints: the averages alone, since a column per class would be too wide, and all notes."""
    table = averages(comparison)
    lines = [*table.notes, *notes(comparison), *named_remarks(comparison.evaluations)]
    return f"{table.title}\n\n{_markdown_table(table.header, table.rows)}\n\n" + "\n".join(dict.fromkeys(lines))


def save_tables(comparison: Comparison, folder: str | PathLike, stem: str) -> list[Path]:
    """Write ``STEM.md`` and ``.tex``, and of several rows all numbers as ``.json``; returns the files."""
    files = [Path(folder, stem + ending) for ending in (".md", ".tex", ".json")]
    write_text(files[0], to_markdown(comparison))
    write_text(files[1], to_latex(comparison))
    if not comparison.has_several_rows:
        return files[:2]
    write_json(files[2], comparison.as_json())
    return files


def save_comparison(comparison: Comparison, folder: str | PathLike) -> list[Path]:
    """Write ``summary.json`` and ``.csv`` of each prediction, of several rows in ``NAME/``, and :func:`save_tables`."""
    several, files = comparison.has_several_rows, []
    for name, evaluation in comparison.evaluations.items():
        own = Path(folder, name) if several else Path(folder)
        own.mkdir(parents=True, exist_ok=True)
        save_summary(evaluation, own / "summary.json")
        save_summary_csv(evaluation, own / "summary.csv")
        files += [own / "summary.json", own / "summary.csv"]
    return files + save_tables(comparison, folder, "comparison" if several else "summary")


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    padded = aligned([[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)])
    lines = [f"| {' | '.join(row)} |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (len(cell) + 2) for cell in padded[0]) + "|")
    return "\n".join(lines)


def to_latex(comparison: Comparison) -> str:
    """Format one LaTeX ``tabular`` for the package booktabs: a block of rows for Dice, one for ASSD."""
    groups, columns = comparison.groups, comparison.columns
    width = len(columns)
    heads = [rf"\multicolumn{{{width}}}{{c}}{{{_latex(group)}}}" for group in groups]
    starts = [2 + i * width for i in range(len(groups))]
    lines = [
        *(f"% {line}" for line in notes(comparison)),
        rf"\begin{{tabular}}{{l{'c' * width * len(groups)}}}",
        r"\toprule",
        " & ".join(["", *heads]) + r" \\",
        " ".join(rf"\cmidrule(lr){{{start}-{start + width - 1}}}" for start in starts),
        " & ".join(["", *map(_latex, columns * len(groups))]) + r" \\",
    ]
    for metric in REPORTED_METRICS:
        title = rf"\textit{{{_latex(TITLES[metric])}}}"
        lines += [r"\midrule", rf"\multicolumn{{{1 + width * len(groups)}}}{{l}}{{{title}}} \\"]
        for name, cells in table_rows(comparison, metric):
            texts = [rf"\textbf{{{cell.text}}}" if cell.best else cell.text for cell in cells]
            texts = [text.replace(" ± ", r" $\pm$ ").replace(MARK, r"$^\dagger$") for text in texts]
            lines.append(" & ".join([_latex(name), *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, "\\" * (character in "&%$#_{}") + character) for character in text)
