"""Records to look things up in, and tables of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sources import LGG, Source
from systems import STOCK_TRAINER

Values = dict[int, list[float]]  # seed -> of each subject


@dataclass(frozen=True)
class Results:
    """Some of the records of docs/results.json."""

    records: list[dict]

    def where(self, stock: bool | None = None, **wanted) -> "Results":
        """Those with these values; ``stock`` tells nnU-Net's trainers from ours."""
        return Results(
            [
                record
                for record in self.records
                if stock in (None, is_stock(record)) and all(record[name] == value for name, value in wanted.items())
            ]
        )

    def values_of(self, name: str) -> list:
        """The distinct values, sorted."""
        return sorted({record[name] for record in self.records})

    def complete(self) -> "Results":
        """Those of the seeds that every arrangement's system of ours has: a run that was cut leaves others."""
        ours = self.where(stock=False, selected=True)
        seeds = [set(ours.where(arrangement=arrangement).seeds) for arrangement in ours.values_of("arrangement")]
        return Results([record for record in self.records if all(record["seed"] in each for each in seeds)])

    @property
    def seeds(self) -> list[int]:
        return self.values_of("seed")

    def systems(self) -> dict[str, "Results"]:
        """Ours first, each under its name."""
        names = {name_of(record): record for record in self.records}
        ordered = sorted(names, key=lambda name: (is_stock(names[name]), name))
        return {name: Results([r for r in self.records if name_of(r) == name]) for name in ordered}

    def values(self, name: str) -> Values:
        """By seed, of records of one system and input."""
        return {record["seed"]: record[name] for record in self.records}

    def mean(self, given: str, metric: str) -> float | None:
        """Over seeds, for one input; None where nothing was measured."""
        found = [record[metric] for record in self.where(test_input=given).records if record[metric] is not None]
        return float(np.mean(found)) if found else None

    def mean_of_inputs(self, metric: str, source: Source = LGG) -> str:
        means = [self.mean(given, metric) for given in source.inputs]
        return "" if None in means else f"{np.mean(means):.1f}"

    def stock_models(self, given: str) -> list["Results"]:
        """nnU-Net's models that can be asked with this input: with both, the one that looks at FLAIR alone, too."""
        at = self.where(stock=True)
        alone = "FLAIR" if given == "both" else given
        answers = (at.where(channels="both", test_input=given), at.where(channels=alone))
        return [answer for answer in answers if answer.records]

    def better_stock(self, given: str, values: str) -> Values:
        """The values of the stock model with the higher mean over seeds: the judge of what is better sees the test."""
        models = [model.values(values) for model in self.stock_models(given)]
        return max(models, key=lambda model: np.mean(list(model.values())), default={})

    def best_stock_dice(self, given: str) -> float | None:
        means = [np.mean([record["dice"] for record in model.records]) for model in self.stock_models(given)]
        return float(max(means)) if means else None


def is_stock(record: dict) -> bool:
    return record["trainer"].startswith(STOCK_TRAINER)


def name_of(record: dict) -> str:
    """As a reader of a table would call the system."""
    trainer = record["trainer"].removesuffix("_cmcbudget")
    if not is_stock(record):
        return f"{trainer}, {record['planner']}"
    network = "nnU-Net ResEnc" if "ResEnc" in record["planner"] else "nnU-Net"
    trained = "both sequences" if record["channels"] == "both" else record["channels"]
    return ", ".join(filter(None, (network, trained, record["recipe"])))


def mean_and_spread(results: Results, metric: str) -> str:
    """Mean over the seeds, and their standard deviation if there are several; empty where nothing was measured."""
    found = [record[metric] for record in results.records if record[metric] is not None]
    if not found:
        return ""
    spread = f" ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else ""
    return f"{np.mean(found):.1f}{spread}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, or a sentence where there is no row."""
    if not rows:
        return "*Not run yet.*"
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
