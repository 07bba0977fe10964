"""Names of the checkpoints in the folder ``fold_X`` of a trained model, which nnU-Net gives them."""

from pathlib import Path

FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"


def final_checkpoint(model: Path, fold: str) -> Path:
    """Return the checkpoint of a finished training, which need not exist, in the folder of a model."""
    return model / f"fold_{fold}" / FINAL
