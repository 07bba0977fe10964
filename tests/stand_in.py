"""A stand-in for nnU-Net's commands as ``nnunet_cmc compare`` runs them, which leaves the files that they would."""

import itertools
import json
import os
import threading

import numpy as np
import SimpleITK as sitk
import torch

from nnunet_cmc.commands.subcommands import CommandError

CMC = "CMCTrainer"
LABEL = np.zeros((10, 10, 10), np.uint8)
LABEL[2:8, 2:8, 2:8] = 1
LABEL[8:, :3, :3] = 2


class StandIn:
    """Trains at once; the worse, the fewer modalities are shown, and CMCTrainer is better than the others.

    Attributes:
        commands: that were given.
        failures: trainer -> the error of its training.
        meeting: of trainings that must run at the same time, if any.
        trials: seconds of a training and of a case that a trial finds, if any ends.
        cases: what checkpoints say that they were trained on; nothing, as nnU-Net's own.
    """

    def __init__(self, results):
        self.results = results
        self.commands = []
        self.failures = {}
        self.meeting: threading.Barrier | None = None
        self.trials: tuple[int, int] | None = None
        self.cases: dict | None = None

    def __call__(self, command, log, environment, line=lambda text: None, started=lambda process: None):
        self.commands.append(command)
        assert environment["NNUNET_CMC_SEED"] == "7"
        word = dict(itertools.pairwise(command))
        if "-m" in word:
            if self.trials is None:
                raise CommandError("refused")
            line("The training is expected to take {} s, the prediction of a case {} s\n".format(*self.trials))
        elif command[0] == "nnUNetv2_train":
            fold = self.results / f"{word['-tr']}__{word['-p']}__{command[2]}" / f"fold_{command[3]}"
            fold.mkdir(parents=True, exist_ok=True)
            if self.meeting:
                self.meeting.wait(timeout=30)
            if word["-tr"] in self.failures:
                raise self.failures[word["-tr"]]
            (fold / "debug.json").write_text(json.dumps({"num_epochs": "5"}))
            (fold / "training_log_1.txt").write_text("x: Epoch 0 \nx: Epoch time: 2.0 s\n" * 5)
            for _ in range(4):
                line("2026: Epoch time: 120.0 s\n")
            torch.save({"cases": self.cases}, fold / "checkpoint_final.pth")
        else:
            predict(word["-i"], word["-o"], word["-tr"] == CMC)
            for case in "abcdefgh":
                line(f"Predicting {case}:\n")


def predict(images, output, better):
    os.makedirs(output)
    for case in sorted({name[: -len("_0000.nii.gz")] for name in os.listdir(images)}):
        files = [os.path.join(images, f"{case}_{channel:04d}.nii.gz") for channel in (0, 1)]
        shown = sum(bool(sitk.GetArrayFromImage(sitk.ReadImage(file)).any()) for file in files)
        label = np.roll(LABEL, 3 - shown - better, 0)
        image = sitk.GetImageFromArray(label)
        image.CopyInformation(sitk.ReadImage(files[0]))
        sitk.WriteImage(image, os.path.join(output, f"{case}.nii.gz"))
