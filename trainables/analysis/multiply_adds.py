"""Multiply-adds of a network for one image, in all and by prunable weight.

The formulas are PyTorch's (torch.utils.flop_counter: two operations are one multiply-add; elementwise operations, norms and
pools are not counted). An operation belongs to a weight if it reads the weight, whether the layer, a functional call or another
module executes it. Unknown counts are None, never too small a number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from trainables.pruning.score_gradients import scoring_mode

# Words in the names of operations that multiply and add; their counts are unknown without a formula.
MULTIPLYING = {
    *("mm", "bmm", "addmm", "addbmm", "baddbmm", "mv", "addmv", "dot", "vdot", "matmul", "linear", "trilinear", "einsum"),
    *("convolution", "conv1d", "conv2d", "conv3d", "attention", "transformer", "rnn", "lstm", "gru", "cdist", "fft", "linalg"),
}
ELEMENTWISE = {"_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"}  # their products are separate operations, mm and addmm
COPIES = {"_to_copy", "clone", "contiguous", "copy", "alias", "detach", "lift_fresh"}
FREE = ("prim", "prims", "profiler")  # namespaces without arithmetic of networks


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiplyAdds:
    """Counts for one image.

    Attributes:
        total: of the dense network; None if PyTorch's counter does not know an operation.
        uses: multiply-adds of each element of a prunable weight, by name (for a convolution its output pixels); 0 for a layer
            that is never called, None where unknown.
    """

    total: int | None
    uses: Mapping[str, int | None]


def multiply_adds(model: nn.Module, names: set[str], image_shape: tuple[int, int, int]) -> MultiplyAdds:
    """The counts of a network in eval mode, which is not changed; all None if it fails with a single image.

    Args:
        names: of the prunable weights.
    """
    weights = {name: weight for name, weight in model.named_parameters() if name in names}
    counter = _Counter(weights)
    image = torch.zeros((1, *image_shape), device=next(model.parameters()).device)
    try:
        with scoring_mode(model, "running"), _counted_operations(model), torch.no_grad(), counter:
            model(image)
    except Exception:  # a user's network may raise anything; only these figures are missing then
        return MultiplyAdds(total=None, uses=dict.fromkeys(names))
    unknown = {name for name in weights if counter.read_otherwise[name] and not counter.uses[name]} | counter.ambiguous
    total = None if counter.has_unknown or unknown else counter.total
    return MultiplyAdds(total=total, uses={name: None if name in unknown else counter.uses.get(name) for name in names})


@contextmanager
def _counted_operations(model: nn.Module) -> Iterator[None]:
    """Inside, attention and recurrent layers run as separate products instead of one fused operation."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(warnings.catch_warnings(action="ignore"))  # about flags that keep their values
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


class _Counter(TorchDispatchMode):
    """Sums the multiply-adds of the operations inside it, in all and by the weights that they read."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes = {name: weight.numel() for name, weight in weights.items()}
        self.total = 0
        self.has_unknown = False
        self.uses = dict.fromkeys(weights, 0)
        self.read_otherwise = dict.fromkeys(weights, False)
        self.ambiguous: set[str] = set()  # weights that an operation reads partly, or together with another one
        self._owners = {_storage(weight): name for name, weight in weights.items()}
        if len(self._owners) < len(weights):
            self.ambiguous |= set(weights)
        self._copies: list[Tensor] = []  # kept, so that their memory is not reused for another tensor

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False, since nothing is compiled inside; the default imports PyTorch's compiler, which takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            self.has_unknown = True
            return func(*args, **kwargs)
        formula = _formula(func)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        out = func(*args, **kwargs)
        read = {name: tensor for tensor in _tensors((args, kwargs)) if (name := self._owners.get(_storage(tensor)))}
        if formula is not None:
            self._count(int(formula(*args, **kwargs, out_val=out)) // 2, read)
        elif _may_multiply(func):
            self.has_unknown = True
            self.ambiguous |= set(read)
        elif read and not self._is_copy(func, out, read):
            self.read_otherwise |= dict.fromkeys(read, True)
        return out

    def _count(self, number: int, read: Mapping[str, Tensor]) -> None:
        self.total += number
        for name, tensor in read.items():
            if len(read) > 1 or tensor.numel() % self.sizes[name]:
                self.ambiguous.add(name)
            else:
                self.uses[name] += number // self.sizes[name]

    def _is_copy(self, func: OpOverload, out: Any, read: Mapping[str, Tensor]) -> bool:
        """Whether the result is a view or copy of the weight, which then counts as the weight too."""
        name, *others = read
        if others or not isinstance(out, Tensor):
            return all(_storage(one) in self._owners for one in _tensors(out))  # such as chunks, which are views
        if _storage(out) not in self._owners:
            if func._opname not in COPIES:
                return False
            self._owners[_storage(out)] = name
            self._copies.append(out)
        return True


def _matrix_vector(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
    matrix = next(one for one in args if isinstance(one, Tensor) and one.dim() == 2)
    return 2 * matrix.numel()


def _vectors(first: Tensor, *args: Any, out_val: Any = None, **kwargs: Any) -> int:
    return 2 * first.numel()


def _matrices(first: Tensor, batch1: Tensor, batch2: Tensor, *args: Any, out_val: Any = None, **kwargs: Any) -> int:
    return 2 * prod(batch1.shape) * batch2.shape[-1]


_OWN_FORMULAS: dict[Any, Callable[..., int]] = {  # for products without a formula in PyTorch
    torch.ops.aten.mv: _matrix_vector,
    torch.ops.aten.addmv: _matrix_vector,
    torch.ops.aten.dot: _vectors,
    torch.ops.aten.vdot: _vectors,
    torch.ops.aten.addbmm: _matrices,
}


def _formula(func: OpOverload) -> Callable[..., int] | None:
    packet = func._overloadpacket
    return flop_registry.get(packet) or _OWN_FORMULAS.get(packet)


def _may_multiply(func: OpOverload) -> bool:
    """Whether an operation without a formula may multiply and add; operations from outside PyTorch may."""
    if func.namespace in FREE or func._opname in ELEMENTWISE:
        return False
    return func.namespace != "aten" or bool(MULTIPLYING & set(func._opname.split("_")))


def _tensors(values: Any) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor)]


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
