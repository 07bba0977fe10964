"""The operators that a computation starts."""

from torch.utils._python_dispatch import TorchDispatchMode

ALLOCATING = {"aten.empty", "aten.empty_like", "aten.new_empty", "aten.new_empty_strided", "aten.empty_strided"}
NO_WORK = ALLOCATING | {"aten._unsafe_view", "aten.promote_types"}


class Operators(TorchDispatchMode):
    """Names of the operators that are started; views, and memory that is only reserved, start nothing."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not (func.is_view or func.namespace == "prim" or str(func.overloadpacket) in NO_WORK):
            self.names.append(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))
