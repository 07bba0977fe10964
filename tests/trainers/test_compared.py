"""Every compared system trains and is resumed, on the kind of scans that it is made for or that is harder for it."""

import pytest
import torch
from short_trainers import resumed, short

from nnunet_cmc.trainers.compared import COMPARED

UNPAIRED = {"UMMLTrainer", "MMFormerTrainer", "UMMKDTrainer", "CPSTrainer"}
EPOCHS = 4  # pseudo-labels of whole scans are made before the second and the third; CML relearns in the last


@pytest.mark.parametrize("name", COMPARED)
def test_a_resumed_training_equals_an_uninterrupted_one(request, name):
    cubes = request.getfixturevalue("unpaired" if name in UNPAIRED else "registered")
    cls = short(name, EPOCHS)
    whole = cubes.trainer(cls)
    whole.run_training()
    log, names = whole.logger.get_checkpoint(), [term.name for term in COMPARED[name].terms]
    assert all(log[term][-1] != 0 for term in names), "every term has something to compare"
    again = resumed(cubes, cls, EPOCHS - 1)
    logged = again.logger.get_checkpoint()
    assert {term: logged[term] for term in names} == {term: log[term] for term in names}
    for part in ("network", "terms", "average"):
        if module := getattr(whole, part):
            torch.testing.assert_close(getattr(again, part).state_dict(), module.state_dict(), rtol=0, atol=0)
    optimizers = [each.optimizer.state_dict()["state"] for each in (again, whole)]
    torch.testing.assert_close(*optimizers, rtol=0, atol=0)
