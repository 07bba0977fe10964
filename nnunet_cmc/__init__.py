"""Semi-supervised multimodal segmentation as an extension of nnU-Net v2.

What programs may import from here; each name is loaded when it is first asked for:

* ``Predictor``: a trained model that stays in memory and predicts arrays or files from any number of threads.
* ``CMCNet``: the network, ``(B, M, D, H, W)`` to logits ``(B, K, D, H, W)``, of any M >= 2 modalities and any subset
  of them present; ``CMCOutput``: what it gives to training.
* ``CSCLoss``, ``CACLoss``: the losses between modalities, in plain PyTorch.
* ``evaluate_folder``: the metrics of a folder of label maps as an ``Evaluation``; ``compute_metrics``: those of two
  masks; ``DatasetDescription``: the ``dataset.json`` that ``evaluate_folder`` needs, by ``read``.

Planning, training and prediction on the command line are nnU-Net's, which finds our planners and trainers by name.
"""

__version__ = "0.1.0"
__all__ = [
    "CACLoss",
    "CMCNet",
    "CMCOutput",
    "CSCLoss",
    "DatasetDescription",
    "Evaluation",
    "Predictor",
    "compute_metrics",
    "evaluate_folder",
]

TYPE_CHECKING = False  # as type checkers see it, typing's; importing that takes longer than all of this package's hook
if TYPE_CHECKING:
    from nnunet_cmc.data.format.dataset_json import DatasetDescription
    from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
    from nnunet_cmc.evaluation.metrics import compute_metrics
    from nnunet_cmc.evaluation.results import Evaluation
    from nnunet_cmc.inference.predictor import Predictor
    from nnunet_cmc.losses import CACLoss, CSCLoss
    from nnunet_cmc.networks import CMCNet, CMCOutput
else:
    # this package is imported at every start of Python in its environment, torch must not be
    _MODULES = {
        "CACLoss": "nnunet_cmc.losses",
        "CMCNet": "nnunet_cmc.networks",
        "CMCOutput": "nnunet_cmc.networks",
        "CSCLoss": "nnunet_cmc.losses",
        "DatasetDescription": "nnunet_cmc.data.format.dataset_json",
        "Evaluation": "nnunet_cmc.evaluation.results",
        "Predictor": "nnunet_cmc.inference.predictor",
        "compute_metrics": "nnunet_cmc.evaluation.metrics",
        "evaluate_folder": "nnunet_cmc.evaluation.folder_evaluation",
    }

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)

    def __dir__():
        return [*globals(), *_MODULES]
