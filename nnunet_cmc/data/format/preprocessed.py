"""What the preprocessor writes and a training reads: names of folders and properties, and the value of background."""

# Replaces exact zeros of a present channel, so that a patch of zeros means that the modality is absent.
ALMOST_ZERO = 1e-6
UNFINISHED = ".unfinished"  # ending of a folder that is being filled
ADDED_PROPERTIES = ("present_channels", "body_box")  # of a case, besides nnU-Net's


def unlabeled_folder(preprocessed_folder: str) -> str:
    """Return the folder of preprocessed cases of ``imagesUn``, beside the folder that stock trainers read."""
    return preprocessed_folder + "_unlabeled"
