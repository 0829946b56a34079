"""The pickles inside files of `torch.save`, read as data: no name in them is looked up or called.

A name is compared with the few that tensors and NumPy arrays are made of, whose effect is written
here; an object of any other name becomes a `Placeholder`. The same idea as
`torch.load(weights_only=True)`, except that what is not modelled does not spoil the rest.
"""

import collections
import math
import operator
import pickle
import re
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import ml_dtypes
import numpy as np

_DEEPEST = 100  # levels of dicts, lists and tuples; a structure that holds itself has no end
# How often the elements of a pickle's lists may be copied: a few bytes could ask for it any number
# of times. Writers copy each once.
_COPIES = 4
# What NumPy has no kind for becomes float32.
_WIDENED: dict[str, np.dtype] = {
    name: np.dtype(getattr(ml_dtypes, name))
    for name in (
        *("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
        "float8_e8m0fnu",
    )
}
_DTYPES = _WIDENED | {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        *("float64", "float32", "float16", "complex64", "complex128", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    )
}
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "BFloat16Storage": "bfloat16",
    "UntypedStorage": "uint8",  # whose tensors say their kind
}


@dataclass(frozen=True)
class Global:
    """A name in a file."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Placeholder:
    """Stands for an object that is not modelled: its kind, and nothing of what it holds.

    Attributes:
      kind: the name of its class, or of the function that would make it.
    """

    __slots__ = ("kind",)

    def __init__(self, kind: Any):
        self.kind = str(kind)

    def __repr__(self) -> str:
        return f"<{self.kind}>"

    def _leave_out(self, *_: Any) -> None:
        """Subclasses of lists, sets and dicts are filled by this."""

    append = extend = add = __setitem__ = _leave_out


def storage_dtype(kind: Any) -> np.dtype:
    """The element type of a kind of storage.

    Raises:
      ValueError: there is no such kind.
    """
    if not isinstance(kind, Global) or kind.name not in _STORAGES:
        raise ValueError(f"unknown storage type {kind}")
    return _DTYPES[_STORAGES[kind.name]]


@dataclass(eq=False)
class Storage:
    """Memory of tensors, in elements of one type; perhaps a part of another storage.

    Attributes:
      data: bytes; None until they have been read, and in parts of another.
      root: of which it is a part.
      start: in the root, in elements.
    """

    dtype: np.dtype
    size: int
    data: np.ndarray | None = None
    root: "Storage | None" = None
    start: int = 0

    def fill(self, raw: bytes, name: Any) -> None:
        """Takes over the bytes that were read.

        Raises:
          ValueError: there are too few.
        """
        if len(raw) < self.size * self.dtype.itemsize or len(raw) % self.dtype.itemsize:
            raise ValueError(f"storage {name} is truncated")
        self.data = np.frombuffer(raw, np.uint8)

    def part(self, start: int, size: int) -> "Storage":
        """Elements `start` to `start + size`."""
        if not 0 <= start <= start + size <= self.size:
            raise ValueError("a part of a storage reaches past its end")
        return Storage(self.dtype, size, root=self, start=start)

    def bytes(self) -> np.ndarray:
        if self.root is not None:
            width = self.dtype.itemsize
            return self.root.bytes()[self.start * width : (self.start + self.size) * width]
        if self.data is None:
            raise ValueError("a storage is missing")
        return self.data


@dataclass(eq=False)
class _Tensor:
    """A view into a storage: becomes an array when every storage has been read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * max(self.dtype.itemsize, 4)  # the smaller ones are widened

    def array(self) -> np.ndarray:
        """A read-only view, so that many tensors of one storage take no more memory than it."""
        raw, width = self.storage.bytes(), self.dtype.itemsize
        count = len(raw) // width
        if 0 in self.shape:
            return np.empty(self.shape, np.float32 if self._widened else self.dtype)
        if self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride)) >= count:
            raise ValueError("a tensor reaches past the end of its storage")
        # A stride of zero could make a small file ask for any amount of memory.
        if math.prod(self.shape) > count:
            raise ValueError("a tensor is larger than its storage (an expanded view)")
        strides = tuple(s * width for s in self.stride)
        view: np.ndarray = np.ndarray(self.shape, self.dtype, raw, self.offset * width, strides)
        return view.astype(np.float32) if self._widened else view

    @property
    def _widened(self) -> bool:
        return self.dtype in _WIDENED.values()


@dataclass(eq=False)
class _NumpyType:
    """What `numpy.dtype` pickles as: a code, and later the order of the bytes."""

    code: Any
    order: str = "<"

    def build(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            self.order = state[1]


@dataclass(eq=False)
class _NumpyArray:
    """What NumPy's arrays and scalars pickle as."""

    dtype: Any = None
    data: Any = b""
    shape: Any = ()
    fortran: bool = False
    scalar: bool = False

    def build(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    @property
    def nbytes(self) -> int:
        return len(self.data) if isinstance(self.data, Sized) else 0

    def array(self) -> Any:
        """A read-only array or a scalar; a placeholder of numbers that are none."""
        code, data = getattr(self.dtype, "code", ""), self.data
        if isinstance(data, str):
            data = data.encode("latin-1")  # of Python 2
        if not re.fullmatch(r"[biufc]\d{1,2}", str(code)) or not isinstance(data, bytes):
            return Placeholder("numpy.ndarray")
        flat = np.frombuffer(data, np.dtype(self.dtype.order + str(code)))
        if self.scalar:
            return flat[0]
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _rebuild_tensor(storage: Storage, offset: int, shape: Any, stride: Any, *_: Any) -> _Tensor:
    return _tensor(storage, offset, shape, stride, storage.dtype)


def _rebuild_tensor_v3(
    storage: Storage, offset: int, shape: Any, stride: Any, _grad: Any, _hooks: Any, kind: Any, *_
) -> _Tensor | Placeholder:
    if not isinstance(kind, Global) or kind.name not in _DTYPES:
        return Placeholder(f"a tensor of {kind}")
    return _tensor(storage, offset, shape, stride, _DTYPES[kind.name])


def _tensor(storage: Storage, offset: int, shape: Any, stride: Any, dtype: np.dtype) -> _Tensor:
    sizes, steps = (tuple(map(operator.index, numbers)) for numbers in (shape, stride))
    if min(operator.index(offset), *sizes, *steps, 0) < 0:
        raise ValueError("a tensor has negative sizes")
    return _Tensor(storage, offset, sizes, steps, dtype)


def _first(data: Any, *_: Any) -> Any:
    return data


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in {encoding!r}")
    return text.encode("latin-1")


_BUILTINS: dict[str, Callable[..., Any]] = {
    "set": set,
    "frozenset": frozenset,
    "bytes": lambda: b"",
}
_NUMPY: dict[str, Callable[..., Any]] = {
    "dtype": lambda code, *_: _NumpyType(code),
    "_reconstruct": lambda *_: _NumpyArray(),
    "scalar": lambda dtype, data: _NumpyArray(dtype, data, scalar=True),
}
_NUMPY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
# The effect of the names that are modelled.
_MODELLED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): lambda _factory=None, *items: collections.OrderedDict(*items),
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _first,
    ("torch", "Size"): tuple,
    ("torch", "device"): lambda *arguments: arguments,
    ("_codecs", "encode"): _encode,
    ("copy_reg", "_reconstructor"): lambda kind, *_: Placeholder(kind),
    ("copyreg", "_reconstructor"): lambda kind, *_: Placeholder(kind),
    **{
        (module, name): make
        for modules, names in (
            (("builtins", "__builtin__"), _BUILTINS),
            (_NUMPY_MODULES, _NUMPY),
        )
        for module in modules
        for name, make in names.items()
    },
}
_TYPED = ("torch._tensor", "_rebuild_from_type_v2")  # of tensors with attributes, and subclasses


class Unpickler(pickle._Unpickler):
    """Builds dicts, lists, numbers and strings, what `_MODELLED` says, and placeholders.

    The one written in Python: that in C allots memory by numbers in the file before it reads on.

    Args:
      file: at the start of the pickle.
      persistent: what stands for something outside of the pickle.
      length: of the pickle, in bytes, or more.
    """

    def __init__(self, file: BinaryIO, persistent: Callable[[Any], Any], length: int):
        super().__init__(file, encoding="utf-8")
        self._persistent = persistent
        self._copies = _COPIES * length

    def find_class(self, module: str, name: str) -> Global:
        return Global(module, name)

    def persistent_load(self, pid: Any) -> Any:
        return self._persistent(pid)

    def _make(self, kind: Any, arguments: Any) -> Any:
        if not isinstance(kind, Global) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("it calls what is no name")
        if (kind.module, kind.name) == _TYPED:
            function, _, inner, *_ = arguments
            return self._make(function, inner)
        make = _MODELLED.get((kind.module, kind.name))
        if make is None:
            return Placeholder(kind)
        self._copies -= sum(len(one) for one in arguments if isinstance(one, Sized))
        if self._copies < 0:
            raise pickle.UnpicklingError("it copies its own parts again and again")
        return make(*arguments)

    # Everything that calls, of all protocols.

    def _reduce(self: Any) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], arguments)

    def _newobj(self: Any) -> None:
        arguments = self.stack.pop()
        self.append(self._make(self.stack.pop(), arguments))

    def _newobj_ex(self: Any) -> None:
        del self.stack[-1]  # keyword arguments
        self._newobj()

    def _instantiate(self: Any, kind: Any, arguments: Any) -> None:
        self.append(self._make(kind, tuple(arguments)))

    def _build(self: Any) -> None:
        # Attributes, such as the `_metadata` of state_dicts, could change only what is modelled.
        state = self.stack.pop()
        if isinstance(self.stack[-1], (_NumpyType, _NumpyArray)):
            self.stack[-1].build(state)

    def _bytearray(self: Any) -> None:
        # pickle's own fills as much memory as the file says.
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _newobj,
        pickle.NEWOBJ_EX[0]: _newobj_ex,
        pickle.BUILD[0]: _build,
        pickle.BYTEARRAY8[0]: _bytearray,
    }


def tensor_at(storage: Storage, offset: int, shape: Any, stride: Any) -> Any:
    """A tensor for `resolve`."""
    return _rebuild_tensor(storage, offset, shape, stride)


def resolve(content: Any, limit: int) -> Any:
    """What was unpickled with arrays for tensors, at any depth, and tuples for sets.

    Args:
      content: of an `Unpickler` all of whose storages have been filled.
      limit: bytes of all arrays together.

    Raises:
      ValueError: a tensor is not inside of its storage; they are together larger than the limit; or
        there are more than 100 levels.
    """
    total = sum(one.nbytes for one in _arrays(content))
    if total > limit:
        raise ValueError(
            f"its tensors share memory and unfold to {total / 1e6:,.0f} MB, more than the "
            f"{limit / 1e6:,.0f} MB that a file of its size may"
        )
    return _resolved(content, {})


def _arrays(content: Any) -> Iterator[_Tensor | _NumpyArray]:
    """What becomes an array; what occurs many times comes once."""
    found, rest = set(), [content]
    while rest:
        one = rest.pop()
        if id(one) in found:
            continue
        found.add(id(one))
        if isinstance(one, (_Tensor, _NumpyArray)):
            yield one
        elif isinstance(one, dict):
            rest += one.values()
        elif isinstance(one, (list, tuple, set, frozenset)):
            rest += one


def _resolved(content: Any, done: dict[int, Any], depth: int = 0) -> Any:
    if id(content) in done:
        return done[id(content)]
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    resolved = content
    if isinstance(content, (_Tensor, _NumpyArray)):
        resolved = content.array()
    elif isinstance(content, (Global, Storage, _NumpyType)):
        resolved = Placeholder(content if isinstance(content, Global) else type(content).__name__)
    elif isinstance(content, dict):
        resolved = {key: _resolved(value, done, depth + 1) for key, value in content.items()}
    elif isinstance(content, list):
        resolved = [_resolved(value, done, depth + 1) for value in content]
    elif isinstance(content, (tuple, set, frozenset)):
        resolved = tuple(_resolved(value, done, depth + 1) for value in content)
    done[id(content)] = resolved
    return resolved
