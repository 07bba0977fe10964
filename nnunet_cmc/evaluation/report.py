"""Report of an evaluation: an HTML page with its tables and figures, the figures as PNG files, and all cases."""

from collections.abc import Collection, Mapping
from math import isnan
from os import PathLike
from pathlib import Path

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.scan_folder import cases_of
from nnunet_cmc.data.reading.raw_case import require_one_grid
from nnunet_cmc.evaluation.case_gallery import Entry, Row, gallery, save_opener
from nnunet_cmc.evaluation.case_pictures import CaseFiles, CasePictures, save_case
from nnunet_cmc.evaluation.pages import write_page
from nnunet_cmc.evaluation.paired_statistics import REPORTED_METRICS, Comparison
from nnunet_cmc.evaluation.paper_table import TITLES, averages, notes, table_rows
from nnunet_cmc.evaluation.plots import save_averages, save_distributions
from nnunet_cmc.evaluation.results import Statistic
from nnunet_cmc.evaluation.shown_channels import present_scans
from nnunet_cmc.evaluation.stress_figures import StressRuns
from nnunet_cmc.evaluation.tables import named_remarks
from nnunet_cmc.utils.parallel import run_parallel


def find_scans(
    image_folder: str | PathLike, description: DatasetDescription, references: Mapping[str, str | PathLike]
) -> dict[str, dict[str, Path]]:
    """Find the scans of each case that has a reference, by modality, without the empty ones of absent modalities.

    Raises:
        ValueError: a case has no scan there but empty ones, or one that is not on the grid of its reference, or a file
            looks like a scan and would not be read; see :func:`present_scans`.
    """
    files = cases_of(image_folder, description)
    scans: dict[str, dict[str, Path]] = {}
    for case, reference in references.items():
        own = files.get(case, ())
        require_one_grid(case, [reference, *own], "name the folder of the scans that were labelled")
        scans[case] = present_scans(own, description) if own else {}
    if missing := [case for case, found in scans.items() if not found]:
        raise ValueError(
            f"{image_folder} has no scan of {len(missing)} of {len(scans)} cases, such as {missing[0]}_0000"
            f"{description.file_ending}: name the folder of the scans with -i."
        )
    return scans


def save_report(
    folder: str | PathLike,
    comparison: Comparison,
    scans: Mapping[str, Mapping[str, Path]],
    processes: int = 1,
    stress: StressRuns | None = None,
    ct: Collection[str] = (),
) -> Path:
    """Write ``report.html``, ``figures/``, ``cases/`` and ``open_case.py`` into ``folder``; returns the page.

    Args:
        scans: of each case by modality, as :func:`find_scans` gives them.
        processes: cases drawn at the same time.
        stress: stress tests to show as well.
        ct: modalities that are CT by the dataset; others are where their values say so.
    """
    sections = _save_figures(Path(folder, "figures"), comparison, stress)
    files = _case_files(comparison, scans)
    first, *_ = comparison.evaluations.values()
    jobs = [(Path(folder, "cases", one.case), one, first.classes, ct) for one in files]
    pictures = run_parallel(save_case, jobs, processes, "Drawing cases")
    entries = [_entry(*drawn, comparison) for drawn in zip(files, pictures, strict=True)]
    page, means = Path(folder, "report.html"), averages(comparison)
    write_page(
        page,
        "report",
        title="Evaluation of " + ", ".join(comparison.names),
        groups=comparison.groups,
        columns=comparison.columns,
        tables=[
            {"title": TITLES[metric], "rows": [[name, *cells] for name, cells in table_rows(comparison, metric)]}
            for metric in REPORTED_METRICS
        ],
        notes=notes(comparison),
        averages=means._replace(notes=means.notes + named_remarks(comparison.evaluations)),
        sections=sections,
        gallery=gallery(entries, first.classes),
        cases_note="Slices that together show every class, and where each prediction has most errors. White: the "
        "outlines of the reference.",
        sorted_by=0,
    )
    save_opener(page, files)
    return page


def _save_figures(folder: Path, comparison: Comparison, stress: StressRuns | None) -> list[dict]:
    """Write the figures, and return the sections of the page that show them."""
    folder.mkdir(parents=True, exist_ok=True)
    sections: list[dict] = []

    def show(title: str, note: str, *files: Path) -> None:
        sections.append({"title": title, "note": note, "files": files})

    if len(comparison.names) > 1:
        save_averages(file := folder / "comparison.png", comparison)
        show("Predictions compared", "Average over classes; the line spans the 95 % bootstrap interval.", file)
    save_distributions(file := folder / "distributions.png", comparison)
    note = "A dot is a case; a box spans the middle half of them, its line is the median, its whiskers reach all."
    show("Cases by class and modality", note, file)
    if stress:
        note = (
            "Average over classes. The reference stays with the modalities that are not moved. † and hollow: the mean "
            "leaves out cases in which a class is only in the reference or only in the prediction, so that it is "
            "too favourable."
        )
        show("Missing and misaligned modalities", note, *stress.save_figures(folder))
    return sections


def _case_files(comparison: Comparison, scans: Mapping[str, Mapping[str, Path]]) -> list[CaseFiles]:
    predictions: dict[str, dict[str, str]] = {}
    for name, evaluation in comparison.evaluations.items():
        for case in evaluation.cases:
            predictions.setdefault(case.case, {})[name] = case.prediction_file
    first, *_ = comparison.evaluations.values()
    return [CaseFiles(one.case, scans[one.case], one.reference_file, predictions[one.case]) for one in first.cases]


def _entry(files: CaseFiles, pictures: CasePictures, comparison: Comparison) -> Entry:
    """Describe a case for the page: a row of slices with the reference, and one for each prediction."""
    case, modalities = files.case, list(files.images)
    numbers: dict[str, float] = {}
    rows = [Row("reference", "", modalities, [("label", pictures.reference)])]
    for name, evaluation in comparison.evaluations.items():
        (result,) = (one for one in evaluation.cases if one.case == case)
        dice = {key: 100 * metrics["Dice"] for key, metrics in result.metrics.items()}
        values = {comparison.average: Statistic.of(dice.values()).mean, **dice} if len(dice) > 1 else dice
        of = f", {name}" if len(files.predictions) > 1 else ""
        numbers |= {f"Dice [%] {key}{of}": value for key, value in values.items()}
        note = "Dice " + ", ".join(f"{key} {value:.1f} %" for key, value in values.items() if not isnan(value))
        found, wrong = pictures.predictions[name]
        layers = [("prediction", found), ("outline", pictures.outline), ("errors", wrong)]
        rows.append(Row(name, note, modalities, layers))
    subject = comparison.subjects.get(case, case)
    notes = [*([f"of {subject}"] if subject != case else []), result.modalities]
    return Entry(case, notes, {"modalities": result.modalities}, numbers, pictures, rows)
