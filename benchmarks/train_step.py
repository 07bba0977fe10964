"""Where a training step's time and memory go, part by part, for each planner, beside what the counts allow.

    python benchmarks/train_step.py [--planners CMCPlanner ...] [--trainer CMCTrainer] [--batch 1] [--side N]
                                    [--against nnunet]

Labelled and unlabelled registered pairs of generated abdomens go through a trainer as in a training; if it labels scans
whole, as when they have labels. Every part is then run alone on the inputs that it had: forward and
backward, time and the peak of memory above what was there. Its lower *bound* adds up, over operators (none fused with
another), the larger of their operations by the machine's rate for matrix products and of their bytes by the rate of a
copy; *gap* is the time by that bound. ``whole step`` is the trainer's own, which a CPU loads for, too; on a GPU that is
the work of other processes, and the step is shown with activations kept and computed twice. *Waits* are operators whose
result the host must know before it goes on, which a GPU then makes it wait for, *operators* those that are started.
With ``nnUNet_compile=1`` encoders and decoders are compiled. ``--against nnunet`` shows, for ``CMCPlannerNNUNet``,
nnU-Net's own network of the same plan beside: on as many rows, and a whole step with the plan's batch.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from measure import (
    Ceilings,
    begin,
    busy,
    ceilings,
    count,
    interleaved,
    parser,
    peak_bytes,
    print_table,
    quiet,
    ratio,
    spread,
)  # fmt: skip
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from planned import PLANNERS, stock_of
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils._pytree import tree_leaves, tree_map
from workspace import Workspace

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.networks.stacked import stacked
from nnunet_cmc.planners.nnunet import CMCPlannerNNUNet
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.utils.formatting import dimensions

HEADER = ("part", "GFLOP", "GB", "bound (ms)", "time (ms)", "% of the step", "gap", "peak (MiB)", "waits", "operators")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--planners", nargs="+", choices=PLANNERS, default=list(PLANNERS))
    arguments.add_argument("--trainer", default="CMCTrainer", help="CMCTrainerPaper, for example (%(default)s)")
    arguments.add_argument("--batch", type=int, default=1, help="the plan's (%(default)s pairs)")
    arguments.add_argument("--against", choices=("nnunet",), help="show nnU-Net's network of the same plan, too")
    arguments.add_argument("--side", type=int, help="of the patch in voxels; the planner's, if not given")
    args = arguments.parse_args()
    device = begin(args)
    limits = ceilings(device)
    print(f"ceilings: {limits.flops / 1e9:.0f} GFLOP/s, {limits.bytes / 1e9:.1f} GB/s")
    with tempfile.TemporaryDirectory() as root:
        with quiet():
            workspace = Workspace(root, seed=args.seed)
        for name in args.planners:
            with quiet():
                plans = workspace.plan(PLANNERS[name], side=args.side, batch_size=args.batch)
                workspace.preprocess(plans)
                trainer = workspace.trainer(plans, device, args.trainer)
                loader = loader_of(trainer)
                unlabeled, replaced = trainer.recipe.unlabeled_pairs(trainer.batch_size)
            sides = dimensions(trainer.configuration_manager.patch_size)
            parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
            print(
                f"\n{name}, {args.trainer}: {args.batch - replaced} + {unlabeled} pairs of {sides}, "
                f"{parameters / 1e6:.1f} M parameters"
            )
            print_table(HEADER, rows(trainer, loader, limits, args.repeats, device))
            if args.against and issubclass(PLANNERS[name], CMCPlannerNNUNet):
                print_against(trainer, next(loader), args.repeats, device)
            if device.type == "cuda":
                print_memory(trainer, next(loader))


def loader_of(trainer: CMCTrainer):
    """Return the training's loader, with labels of the unlabelled scans where the recipe makes them."""
    if trainer.recipe.whole_scan_labels is None:
        return trainer.get_dataloaders()[0]
    trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    trainer.current_epoch = trainer.num_epochs - 1
    trainer.on_epoch_start()
    return trainer.dataloader_train


def print_memory(trainer: CMCTrainer, batch: dict) -> None:
    """Print the GPU memory of an update, with weights and moments, and the share of its time that the GPU computes."""
    for what, twice in (("kept", False), ("computed twice", True)):
        trainer.bare_network.checkpointing = twice
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        trainer.update(batch)
        used, held = torch.cuda.max_memory_allocated() / 1e9, torch.cuda.max_memory_reserved() / 1e9
        share = 100 * busy(lambda: trainer.update(batch))
        print(
            f"activations {what}: {used:.1f} GB of memory ({held:.1f} GB reserved), computing {share:.0f} % of the time"
        )


def print_against(trainer: CMCTrainer, batch: dict, repeats: int, device: torch.device) -> None:
    """Print times of nnU-Net's network on as many rows as ours predicts, and of its whole step, and ratios by turn."""
    plan = trainer.configuration_manager.network_arch_init_kwargs["encoder_kwargs"]
    rows = Batch(**batch).to(device).recontrasted()
    n_rows = int(rows.predicted.sum())
    weak = rows.data[rows.n_labeled :]
    stock, one_channel = (
        stock_of(plan, channels, trainer.num_classes).to(device) for channels in (trainer.num_input_channels, 1)
    )
    one = rows.data.flatten(0, 1)[:n_rows, None]
    patches = rows.data[:1].expand(trainer.batch_size, -1, -1, -1, -1)
    target = rows.target[:1].expand(trainer.batch_size, -1, -1, -1, -1)
    optimizer = torch.optim.SGD(stock.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)

    def predict(network: Callable, *inputs: Tensor) -> None:
        with trainer._precision():
            outputs = network(*inputs)
        _backward([outputs.logits, *outputs.deep] if isinstance(outputs, CMCOutput) else outputs)

    def stock_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with trainer._precision():
            scales = stock(patches)
            targets = (interpolate(target.float(), scale.shape[2:]) for scale in scales)
            total = sum(loss(scale, of) / 2**i for i, (scale, of) in enumerate(zip(scales, targets, strict=True)))
        total.backward()
        torch.nn.utils.clip_grad_norm_(stock.parameters(), 12)
        optimizer.step()

    steps: dict[str, Callable[[], object]] = {
        f"nnU-Net's network, {n_rows} rows": partial(predict, one_channel, one),
        f"ours, {n_rows} rows": partial(predict, trainer.bare_network, rows.data, rows.fusion),
        f"nnU-Net's whole step, batch {trainer.batch_size}": stock_step,
        "our whole step": partial(trainer.update, batch),
    }
    if trainer.teacher is not None:
        steps["the teacher's forward"] = partial(trainer.teacher.pseudo_targets, weak, trainer.num_classes)
    seconds = interleaved(steps, repeats, device)
    network, whole = (seconds[name] for name in steps if name.startswith("nnU-Net's"))
    against = {name: whole if "whole" in name else network for name in steps}
    table = ((name, spread(taken, 1000), spread(ratio(taken, against[name]))) for name, taken in seconds.items())
    print_table(("against nnU-Net", "time (ms)", "nnU-Net = 1"), table)


def rows(trainer: CMCTrainer, loader, limits: Ceilings, repeats: int, device: torch.device):
    """Measure the rows of the table, the whole step last."""
    trainer.iteration = 1  # the first of an epoch also measures gradients
    batch = next(loader)
    steps = parts(trainer, Batch(**batch).to(device))
    if device.type == "cuda":
        steps["whole step"] = lambda: update(trainer, batch, False)
        steps["whole step, activations computed twice"] = lambda: update(trainer, batch, True)
    else:
        steps = {"load": lambda: next(loader), **steps, "whole step": lambda: (next(loader), trainer.update(batch))}
    seconds = interleaved(steps, repeats, device)
    whole = median(seconds["whole step"])
    for name, step in steps.items():
        share = f"{100 * median(seconds[name]) / whole:.1f}"
        peak = f"{peak_bytes(step, device) / 2**20:.0f}"
        if name == "load":  # which is nnU-Net's and numpy's, and is not counted
            yield name, "", "", "", spread(seconds[name], 1000), share, "", peak, "", ""
            continue
        counted = count(step)
        bound = limits.seconds(counted)
        yield (
            name, f"{counted.flops / 1e9:.2f}", f"{counted.bytes / 1e9:.2f}", f"{1000 * bound:.3g}",
            spread(seconds[name], 1000), share, f"{median(seconds[name]) / bound:.1f}", peak,
            counted.waits, len(counted.operators),
        )  # fmt: skip


def update(trainer: CMCTrainer, batch: dict, checkpointing: bool) -> None:
    trainer.bare_network.checkpointing = checkpointing
    trainer.update(batch)


def parts(trainer: CMCTrainer, batch: Batch) -> dict[str, Callable[[], object]]:
    """Return each part of a step with the inputs that it has there."""
    network = trainer.bare_network
    steps: dict[str, Callable[[], object]] = {}
    if batch.contrasts is not None:
        steps["random contrasts"] = batch.recontrasted
        batch = batch.recontrasted()
    if trainer.teacher is not None:
        steps["teacher"] = partial(trainer.teacher.teach, batch, trainer.num_classes)
        batch = steps["teacher"]()
    called: dict[str, list] = {"encoders": [], "MIA and fusion": [], "decoders": []}
    modules = {"encoders": network.encoders, "MIA and fusion": [network.mia], "decoders": network.decoders}
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: called[name].append((module, inputs)))
        for name, several in modules.items()
        for module in several
    ]
    how = network.execution
    stacked_on, how.stacked_on = how.stacked_on, None  # so that each encoder is called, and shows its input
    with trainer._precision():
        output = network(batch.data, batch.fusion)
    how.stacked_on = stacked_on
    for hook in hooks:
        hook.remove()

    def module_step(calls):
        with trainer._precision():
            outputs = [module(*inputs) for module, inputs in calls]
        _backward(outputs)

    def stacked_step(modules, inputs):
        with trainer._precision():
            outputs = stacked(modules, inputs)
        _backward(outputs)

    for name, calls in called.items():
        several = [(module, _detached(inputs)) for module, inputs in calls]
        steps[name] = lambda several=several: module_step(several)
    if stacked_on == batch.data.device.type and not network.shared:
        encoders, inputs = zip(*called["encoders"], strict=True)
        steps["encoders, as one computation"] = lambda: stacked_step(encoders, [x for (x,) in inputs])
    seen = CMCOutput(*_detached(tuple(output)))

    def loss_step(loss):
        with trainer._precision():
            terms = loss()
        _backward(terms)

    between = [term for term in trainer.terms.values() if term.compares]
    for name, term in trainer.terms.items():
        if not term.compares:
            steps[f"{name} loss"] = lambda term=term: loss_step(lambda: term(seen, batch))
    if between:
        steps["CSC and CAC"] = lambda: loss_step(lambda: [term(seen, batch) for term in between])
    steps["optimizer"] = lambda: (
        torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), 12),
        trainer.optimizer.step(),
    )
    steps["forward and gradient norms, once an epoch"] = lambda: gradient_norms(trainer, batch)
    return steps


def gradient_norms(trainer: CMCTrainer, batch: Batch) -> None:
    with trainer._precision():
        terms = trainer.loss_terms(trainer.network(batch.data, batch.fusion), batch)
    trainer._measure_gradients(terms)


def _detached(inputs):
    """Return leaves of the graph, at which the backward pass of a part ends."""
    return tree_map(lambda x: x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x, inputs)


def _backward(outputs) -> None:
    tensors = [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.requires_grad]
    torch.autograd.backward(tensors, [torch.ones_like(x) for x in tensors])


if __name__ == "__main__":
    main()
