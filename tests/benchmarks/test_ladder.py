"""The ladder from separate networks to CMCTrainer: its table, and a run."""

import json

import ladder
import pytest
from records import load
from systems import OURS, PLANS
from table import Results


def test_the_ladder_s_table():
    """nnU-Net's column is its model of this very input."""
    records = [
        {"dataset": "lgg", "arrangement": "registered", "trainer": f"{trainer}_cmcbudget", "channels": channels,
         "seed": seed, "test_input": given, "validation_dice": dice}
        for seed, plus in ((0, 0.0), (1, 2.0))
        for trainer, channels, given, dice in (
            ("CMCTrainer", "both", "FLAIR", 10.0 + plus), ("CMCTrainer", "both", "T1post", 20.0),
            ("CMCTrainer", "both", "both", 60.0),
            ("nnUNetTrainer", "both", "FLAIR", 1.0), ("nnUNetTrainer", "both", "both", 50.0),
            ("nnUNetTrainer", "FLAIR", "FLAIR", 40.0), ("nnUNetTrainer", "T1post", "T1post", 30.0),
        )
    ]  # fmt: skip
    rows = ladder.table(Results(records), ["registered", "unpaired"], ["nnUNetTrainer", "CMCTrainer"]).splitlines()
    assert rows[2:] == [
        "| registered | nnUNetTrainer | 0, 1 | 40.0 ± 0.0 | 30.0 ± 0.0 | 50.0 ± 0.0 | 40.0 | 30.3 |",
        "| registered | CMCTrainer | 0, 1 | 11.0 ± 1.4 | 20.0 ± 0.0 | 60.0 ± 0.0 | 30.3 | 30.3 |",
    ]
    fewer = [record for record in records if record["trainer"] != "CMCTrainer_cmcbudget" or record["seed"] == 1]
    rows = ladder.table(Results(fewer), ["registered"], ["nnUNetTrainer", "CMCTrainer"]).splitlines()
    assert [row.split(" | ")[-1] for row in rows[2:]] == [" |", "30.7 |"], "not on all of nnU-Net's seeds"
    hidden = [record | {"hidden_dice": record["validation_dice"] + 3} for record in records]
    rows = ladder.table(Results(hidden), ["registered"], ["CMCTrainer"]).splitlines()
    assert rows[2].endswith("| 30.3 | 30.3 | 33.3 |")


@pytest.mark.slow
def test_the_ladder_runs(data, tmp_path, monkeypatch, capsys):
    """On the validation subjects alone; nnU-Net's plan and ours have the same width, patch and batch."""
    arguments = (
        "--seeds 1 --arrangements unpaired --rungs CMCTrainer nnUNetTrainer --iterations 2 --spacing 1 --channels 4"
    )
    results = tmp_path / "ladder.json"
    monkeypatch.setattr("sys.argv", ["ladder.py", "--data", str(data), "--work", str(tmp_path / "work"),
                                     "--results", str(results), *arguments.split()])  # fmt: skip
    ladder.main()
    assert "| unpaired | CMCTrainer | 0 |" in capsys.readouterr().out
    found = load(results)
    assert sorted((record["trainer"], record["channels"], record["test_input"]) for record in found) == [
        *(("CMCTrainer_cmcbudget", "both", given) for given in ("FLAIR", "T1post", "both")),
        ("nnUNetTrainer_cmcbudget", "FLAIR", "FLAIR"), ("nnUNetTrainer_cmcbudget", "T1post", "T1post"),
        *(("nnUNetTrainer_cmcbudget", "both", given) for given in ("FLAIR", "T1post", "both")),
    ]  # fmt: skip
    assert all(sorted(record["validation_by_subject"]) == [f"train{n}" for n in range(72, 80)] for record in found)
    predicted = {file.name[:5] for file in (tmp_path / "work").rglob("predictions/**/*.nii.gz")}
    assert predicted == {"train"}
    dataset = {OURS: "unpaired", "ExperimentPlanner": "stock_unpaired"}
    plans = {
        planner: json.loads(file.read_text())["configurations"]["3d_fullres"]
        for planner in dataset
        for file in (tmp_path / "work").rglob(f"preprocessed/*_LGG_{dataset[planner]}/{PLANS[planner]}.json")
    }
    ours, stock = plans[OURS], plans["ExperimentPlanner"]
    assert ours["patch_size"] == stock["patch_size"]
    assert ours["batch_size"] == stock["batch_size"] == 2
    widths = ours["architecture"]["arch_kwargs"]["encoder_kwargs"]["features_per_stage"]
    assert widths == stock["architecture"]["arch_kwargs"]["features_per_stage"]
    assert widths[0] == 4
