"""Where a computation would make a GPU's host wait, seen on any device."""

import traceback
from typing import Any, Self

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Their results' sizes, or values, must be known on the host.
_WAITING = {
    aten._local_scalar_dense, aten.nonzero, aten.nonzero_numpy, aten.masked_select, aten._unique, aten._unique2,
    aten.unique_consecutive, aten.unique_dim, aten.bincount, aten.equal, aten.is_nonzero, aten.repeat_interleave,
}  # fmt: skip
_ON_THE_HOST = {"split"}  # a batch is cut into micro-batches before it goes to the device
_INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class _Copies(TorchFunctionMode):  # type: ignore[no-untyped-call]
    """Notes a tensor that is made of the host's numbers on a device: the copy is waited for."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (
            func in (torch.tensor, torch.as_tensor, torch.asarray)
            and (kwargs or {}).get("device") is not None
        ):
            self.found.append(f"{func.__name__} {_ours()[-1:]}")
        return func(*args, **(kwargs or {}))


def _ours() -> list[str]:
    return [
        each.filename.rpartition("/")[2] for each in traceback.extract_stack() if "macco/" in each.filename
    ]


class Syncs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation that would wait, by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []
        self.copies = _Copies(self.found)

    def __enter__(self) -> Self:
        self.copies.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *ending: Any) -> None:
        super().__exit__(*ending)  # type: ignore[no-untyped-call]
        self.copies.__exit__(*ending)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        waits = packet in _WAITING and not (
            packet is aten.repeat_interleave and (kwargs or {}).get("output_size")
        )
        if packet in _INDEXING:  # by a mask: how many there are is a result
            waits = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if waits:
            ours = [frame for frame in traceback.extract_stack() if "macco" in frame.filename]
            if not any(frame.name in _ON_THE_HOST for frame in ours):
                self.found.append(f"{func} {ours[-1].filename.rpartition('/')[2]}" if ours else str(func))
        return func(*args, **(kwargs or {}))
