"""An evaluation as one HTML page that needs nothing else, with its figures as PNG files beside it."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from os import PathLike
from pathlib import Path

from nnunet_cmc.data.files import write_text
from nnunet_cmc.data.grid import read_grid
from nnunet_cmc.data.presence import channel_names, present_channels
from nnunet_cmc.data.scan_folder import files_of, split_name
from nnunet_cmc.evaluation.paired_statistics import COMPARED, Comparison
from nnunet_cmc.evaluation.paper_table import TITLES, averages, averages_notes, averages_title, notes, table_rows
from nnunet_cmc.evaluation.plots import save_comparison, save_distributions
from nnunet_cmc.evaluation.prediction_picture import CaseFiles, save_overview
from nnunet_cmc.evaluation.results import CaseResult, Evaluation, Statistic
from nnunet_cmc.evaluation.stress_figures import StressRuns
from nnunet_cmc.evaluation.tables import one_sided_remarks

_WORST, _BEST = 3, 2
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 2em auto; padding: 0 1em; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
img { display: block; max-width: 100%; height: auto; }
p.note { color: #555; font-size: 0.9em; margin: 0.3em 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85em; font-variant-numeric: tabular-nums; margin: 0.5em 0; }
th, td { padding: 0.25em 0.55em; text-align: right; white-space: nowrap; }
th { border-bottom: 1px solid #999; }
.text { text-align: left; }
th.group { text-align: center; }
tr:nth-child(even) td { background: #f5f5f5; }
"""


def find_scans(
    image_folder: str | PathLike, dataset_json: dict, references: Mapping[str, str | PathLike]
) -> dict[str, dict[str, Path]]:
    """Scans of each case that has a reference, by the modality's name, without the empty ones of absent modalities.

    Args:
        references: reference file of each case.

    Raises:
        ValueError: a case has no scan there, or one that is not on the grid of its reference, or a file looks like a
            scan and would not be read.
    """
    folder, names = Path(image_folder), channel_names(dataset_json)
    scans: dict[str, dict[str, Path]] = {case: {} for case in references}
    for file in map(Path, files_of(folder, dataset_json["file_ending"])):
        case, channel = split_name(file.name, dataset_json["file_ending"]) or ("", 0)
        if case in scans and channel in (present_channels(dataset_json, case) or range(len(names))):
            _require_grid(case, file, references[case])
            scans[case][names[channel]] = file
    if missing := [case for case, found in scans.items() if not found]:
        raise ValueError(
            f"{folder} has no scan of {len(missing)} of {len(scans)} cases, such as {missing[0]}_0000"
            f"{dataset_json['file_ending']}: name the folder of the scans with -i."
        )
    return scans


def _require_grid(case: str, scan: Path, reference: str | PathLike) -> None:
    try:
        differences = read_grid(scan).differences(read_grid(reference))
    except ValueError as error:
        raise ValueError(f"Case {case}: {scan} or its reference {error}.") from error
    if differences:
        raise ValueError(
            f"Case {case}: {scan} is not on the grid of {reference} ({', '.join(differences)}): name the folder of the "
            "scans that were labelled."
        )


def save_report(
    folder: str | PathLike,
    comparison: Comparison,
    scans: Mapping[str, Mapping[str, Path]],
    stress: StressRuns | None = None,
) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into ``folder``; returns the page.

    Args:
        scans: of each case by modality, as :func:`find_scans` gives them.
        stress: stress tests to show as well.
    """
    figures = Path(folder, "figures")
    figures.mkdir(parents=True, exist_ok=True)
    sections = [_tables(comparison)]
    if len(comparison.names) > 1:
        save_comparison(figures / "comparison.png", comparison)
        text = "Average over classes; the line spans the 95 % bootstrap interval."
        sections.append(_section("Predictions compared", _note(text), _image(figures / "comparison.png")))
    save_distributions(figures / "distributions.png", comparison)
    text = "A dot is a case; a box spans the middle half of them, its line is the median, its whiskers reach all."
    sections.append(_section("Cases by class and modality", _note(text), _image(figures / "distributions.png")))
    if stress:
        text = (
            "Average over classes. The reference stays with the modalities that are not moved. † and hollow: a class "
            "was missed or invented in some case, which is not in the mean, so that it looks better than it is."
        )
        pictures = [_image(file) for file in stress.save_figures(figures)]
        sections.append(_section("Missing and misaligned modalities", _note(text), *pictures))
    for number, (name, evaluation) in enumerate(comparison.evaluations.items()):
        file = figures / (f"cases_{number + 1}.png" if len(comparison.names) > 1 else "cases.png")
        chosen = worst_and_best(evaluation)
        save_overview(file, _case_files(chosen, scans), evaluation.classes, differences=True)
        text = (
            f"The {min(_WORST, len(chosen))} worst of {len(evaluation.cases)} cases by their mean Dice, the worst "
            f"first, then the {max(0, len(chosen) - _WORST)} best. The slice is the one that shows most of the "
            "reference, and for the worst cases also the one with most errors."
        )
        sections.append(_section(f"Worst and best cases: {name}", _note(text), _image(file)))
    title = "Evaluation of " + ", ".join(comparison.names)
    page = Path(folder, "report.html")
    write_text(
        page,
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{''.join(sections)}</body>\n</html>\n",
    )
    return page


def worst_and_best(evaluation: Evaluation) -> list[CaseResult]:
    """The cases of lowest mean Dice over their classes, then those of highest, rising; none twice.

    Cases in which no class is in the reference or the prediction are left out.
    """
    dice = {case.case: Statistic.of(metrics["Dice"] for metrics in case.metrics.values()) for case in evaluation.cases}
    judged = [case for case in evaluation.cases if dice[case.case].n]
    ranked = sorted(judged, key=lambda case: dice[case.case].mean)
    return ranked[:_WORST] + ranked[_WORST:][-_BEST:]


def _case_files(cases: Sequence[CaseResult], scans: Mapping[str, Mapping[str, Path]]) -> list[CaseFiles]:
    single = all(len(scans[case.case]) == 1 for case in cases)  # one column for the scans, whatever they are
    rows = []
    for rank, case in enumerate(cases):
        dice = Statistic.of(metrics["Dice"] for metrics in case.metrics.values()).mean
        images, modality = scans[case.case], ""
        if single:
            ((name, file),) = images.items()
            images, modality = {"scan": file}, f"{name}, "
        label = f"{case.case}\n{modality}Dice {100 * dice:.1f} %"
        files = CaseFiles(label, images, case.reference_file, {"prediction": case.prediction_file})
        rows.append(files)
        if rank < _WORST and dice < 1:
            rows.append(replace(files, case="where it errs most", errors=True))
    return rows


def _tables(comparison: Comparison) -> str:
    columns, parts = comparison.columns, []
    for metric in COMPARED:
        groups = "".join(f'<th class="group" colspan="{len(columns)}">{escape(g)}</th>' for g in comparison.groups)
        header = ["prediction", *columns * len(comparison.groups)]
        rows = table_rows(comparison, metric, lambda text: f"<b>{text}</b>")
        body = _table(header, [[escape(name), *cells] for name, *cells in rows], f"<tr><th></th>{groups}</tr>")
        parts.append(f"<h3>{TITLES[metric]}</h3>{body}")
    parts += [_note(line) for line in notes(comparison)]
    header, rows = averages(comparison)
    parts.append(f"<h3>{escape(averages_title(comparison))}</h3>")
    parts.append(_table(header, [[escape(cell) for cell in row] for row in rows], text_columns=3))
    parts += [_note(line) for line in averages_notes(comparison)]
    for name, evaluation in comparison.evaluations.items():
        parts += [_note(f"{name}: {line}") for line in one_sided_remarks(evaluation)]
    return _section("Numbers", *parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], above: str = "", text_columns: int = 1) -> str:
    """``rows`` are HTML already; numbers stand on the right."""
    kinds = [' class="text"'] * text_columns + [""] * (len(header) - text_columns)
    head = "".join(f"<th{kind}>{escape(cell)}</th>" for kind, cell in zip(kinds, header, strict=True))
    cells = ["".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows]
    body = "\n".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="wide"><table><thead>{above}<tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'


def _section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>\n'


def _image(file: Path) -> str:
    data = b64encode(file.read_bytes()).decode()
    return f'<img alt="{escape(file.stem)}" src="data:image/png;base64,{data}">\n'
