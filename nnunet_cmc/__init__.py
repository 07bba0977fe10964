"""Semi-supervised multimodal segmentation as an extension of nnU-Net v2."""

__version__ = "0.1.0"
