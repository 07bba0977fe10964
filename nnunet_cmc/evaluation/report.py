"""Report of an evaluation: one self-contained HTML page, and its figures as PNG files beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.scan_folder import by_modality, numbered_cases
from nnunet_cmc.data.reading.grid import read_grid
from nnunet_cmc.evaluation.pages import write_page
from nnunet_cmc.evaluation.paired_statistics import COMPARED, Comparison
from nnunet_cmc.evaluation.paper_table import TITLES, averages, notes, table_rows
from nnunet_cmc.evaluation.plots import save_comparison, save_distributions
from nnunet_cmc.evaluation.prediction_picture import CaseFiles, save_overview
from nnunet_cmc.evaluation.results import CaseResult, Evaluation, Statistic
from nnunet_cmc.evaluation.stress_figures import StressRuns
from nnunet_cmc.evaluation.tables import one_sided_remarks

_WORST, _BEST = 3, 2


def find_scans(
    image_folder: str | PathLike, description: DatasetDescription, references: Mapping[str, str | PathLike]
) -> dict[str, dict[str, Path]]:
    """Find the scans of each case that has a reference, by modality, without the empty ones of absent modalities.

    Raises:
        ValueError: a case has no scan there, or one that is not on the grid of its reference, or a file looks like a
            scan and would not be read.
    """
    files = numbered_cases(image_folder, description.file_ending)
    scans = {case: by_modality(files.get(case, ()), case, description) for case in references}
    for case, file in ((case, file) for case, found in scans.items() for file in found.values()):
        try:
            differences = read_grid(file).differences(read_grid(references[case]))
        except ValueError as error:
            raise ValueError(f"Case {case}: {file} or its reference {error}.") from error
        if differences:
            raise ValueError(
                f"Case {case}: {file} is not on the grid of {references[case]} ({', '.join(differences)}): name the "
                "folder of the scans that were labelled."
            )
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
    stress: StressRuns | None = None,
) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into ``folder``; returns the page.

    Args:
        scans: of each case by modality, as :func:`find_scans` gives them.
        stress: stress tests to show as well.
    """
    figures = Path(folder, "figures")
    figures.mkdir(parents=True, exist_ok=True)
    sections: list[dict] = []

    def show(title: str, note: str, *files: Path) -> None:
        sections.append({"title": title, "note": note, "files": files})

    if len(comparison.names) > 1:
        save_comparison(file := figures / "comparison.png", comparison)
        show("Predictions compared", "Average over classes; the line spans the 95 % bootstrap interval.", file)
    save_distributions(file := figures / "distributions.png", comparison)
    note = "A dot is a case; a box spans the middle half of them, its line is the median, its whiskers reach all."
    show("Cases by class and modality", note, file)
    if stress:
        note = (
            "Average over classes. The reference stays with the modalities that are not moved. † and hollow: the mean "
            "leaves out cases in which a class is only in the reference or only in the prediction, so that it is "
            "too favourable."
        )
        show("Missing and misaligned modalities", note, *stress.save_figures(figures))
    for number, (name, evaluation) in enumerate(comparison.evaluations.items()):
        file = figures / (f"cases_{number + 1}.png" if len(comparison.names) > 1 else "cases.png")
        chosen = worst_and_best(evaluation)
        save_overview(file, _case_files(chosen, scans), evaluation.classes, differences=True)
        note = (
            f"The {min(_WORST, len(chosen))} worst of {len(evaluation.cases)} cases by their mean Dice, the worst "
            f"first, then the {max(0, len(chosen) - _WORST)} best. The slice is the one that shows most of the "
            "reference, and for the worst cases also the one with most errors."
        )
        show(f"Worst and best cases: {name}", note, file)
    remarks = [f"{name}: {line}" for name, one in comparison.evaluations.items() for line in one_sided_remarks(one)]
    page, means = Path(folder, "report.html"), averages(comparison)
    write_page(
        page,
        "report",
        title="Evaluation of " + ", ".join(comparison.names),
        groups=comparison.groups,
        columns=comparison.columns,
        tables=[
            {"title": TITLES[metric], "rows": [[name, *cells] for name, cells in table_rows(comparison, metric)]}
            for metric in COMPARED
        ],
        notes=notes(comparison),
        averages=means._replace(notes=means.notes + remarks),
        sections=sections,
    )
    return page


def worst_and_best(evaluation: Evaluation) -> list[CaseResult]:
    """Return the cases of lowest mean Dice over their classes, then those of highest, rising; none twice.

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
            rows.append(replace(files, case="slice with most errors", errors=True))
    return rows
