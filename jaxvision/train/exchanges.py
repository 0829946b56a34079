"""What a compiled program exchanges between devices, read from its text."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

SMALL = 2**16  # bytes

_COMPUTATION = re.compile(r"^(ENTRY )?(%[\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?(%[\w.\-]+) = (.+?) ([a-z][a-z\d\-]*)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=(%[\w.\-]+)"
    r"|\b(?:branch_computations|called_computations)=\{([^}]*)\}"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
COLLECTIVES = (
    "all-reduce",
    "reduce-scatter",
    "all-gather",
    "all-to-all",
    "collective-permute",
)


@dataclass
class Instruction:
    """One line of HLO.

    Attributes:
      bytes: of each array of its result.
    """

    name: str
    opcode: str
    bytes: list[int]
    operands: list[str]
    called: list[str]
    trips: int | None
    text: str


@dataclass
class Program:
    """The computations of an HLO module by name, in the order of their instructions."""

    entry: str = ""
    computations: dict[str, list[Instruction]] = field(default_factory=dict)


def parse(text: str) -> Program:
    """Reads what `compiled.as_text()` gives."""
    program, current = Program(), []
    for line in text.splitlines():
        line = re.sub(r"/\*.*?\*/", "", line)
        if found := _COMPUTATION.match(line):
            current = program.computations[found[2]] = []
            program.entry = found[2] if found[1] else program.entry
        elif found := _INSTRUCTION.match(line):
            name, shape, opcode, rest = found.groups()
            called = [one or many for one, many in _CALLED.findall(rest)]
            trips = _TRIPS.search(rest)
            current.append(
                Instruction(
                    name,
                    opcode,
                    [_bytes(*array) for array in _ARRAY.findall(shape)],
                    re.findall(r"%[\w.\-]+", rest.split(")", 1)[0]),
                    re.findall(r"%[\w.\-]+", " ".join(called)),
                    int(trips[1]) if trips else None,
                    rest,
                )
            )
    if not program.entry:
        raise ValueError("This is not the text of a compiled program.")
    return program


def _bytes(kind: str, bits: str, shape: str) -> int:
    size = math.prod(int(n) for n in shape.split(",") if n)
    return size if kind == "pred" else size * max(int(bits), 8) // 8


def executed(program: Program) -> Iterator[tuple[str, int, Instruction]]:
    """(computation, how often it runs, instruction) of all that runs; branches count as taken.

    Raises:
      ValueError: nothing says how often a loop with collectives runs.
    """
    pending = [(program.entry, 1)]
    while pending:
        name, times = pending.pop()
        for instruction in program.computations[name]:
            yield name, times, instruction
            inner = times
            if instruction.opcode == "while":
                if instruction.trips is None and _exchanges(program, instruction):
                    raise ValueError(f"How often does {instruction.name} run? It has collectives.")
                inner = times * (instruction.trips or 1)
            pending += [(called, inner) for called in instruction.called]


def _exchanges(program: Program, instruction: Instruction) -> bool:
    return any(
        inner.opcode.removesuffix("-start") in COLLECTIVES or _exchanges(program, inner)
        for called in instruction.called
        for inner in program.computations[called]
    )


def exchanges(program: Program) -> dict[str, dict[str, int]]:
    """`{kind: {"count", "bytes", "small", "small_bytes"}}` of what one device exchanges.

    Bytes are those of the whole array: what is reduced, what is gathered. An asynchronous pair is
    one. Kinds are those of `COLLECTIVES`; an all-reduce of which only slices are used is a
    reduce-scatter. One that holds arrays of both sorts counts once, as that which has more bytes.
    """
    found: dict[str, Counter] = defaultdict(Counter)
    for name, times, instruction in executed(program):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        sizes = {one.name: sum(one.bytes) for one in program.computations[name]}
        operands = [sizes[operand] for operand in instruction.operands]
        total = sum(operands)
        if kind == "all-gather":  # the result of a start holds the operands too
            total = sum(instruction.bytes) - total * (instruction.opcode != kind)
        parts = {kind: total}
        if kind == "all-reduce":
            sliced = sum(
                size
                for index, size in enumerate(operands)
                if _only_sliced(program, name, instruction, index)
            )
            parts = {"all-reduce": total - sliced, "reduce-scatter": sliced}
        largest = max(parts, key=lambda kind: parts[kind])
        for part, size in parts.items():
            small = "small_" if total < SMALL else ""
            found[part][f"{small}bytes"] += times * size
        found[largest]["small" if total < SMALL else "count"] += times
    keys = ("count", "bytes", "small", "small_bytes")
    return {
        kind: {key: found[kind][key] for key in keys}
        for kind in COLLECTIVES
        if any(found[kind].values())
    }


def _only_sliced(program: Program, name: str, reduced: Instruction, index: int) -> bool:
    """Whether all that uses an array of an all-reduce takes a slice of it."""
    users = [one for one in program.computations[name] if reduced.name in one.operands]
    if len(reduced.bytes) > 1:
        parts = [one for one in users if re.search(rf"\bindex={index}\b", one.text)]
        return all(_slices(program, name, part.name) for part in parts)
    return _slices(program, name, reduced.name)


def _slices(program: Program, name: str, array: str) -> bool:
    users = [one for one in program.computations[name] if array in one.operands]
    return bool(users) and all(_slice(program, name, user, array) for user in users)


def _slice(program: Program, name: str, user: Instruction, array: str) -> bool:
    if user.opcode == "dynamic-slice":
        return user.operands[0] == array
    if user.opcode in ("bitcast", "copy"):
        return _slices(program, name, user.name)
    if user.opcode not in ("fusion", "call"):
        return False
    (called,) = user.called
    parameters = {
        int(one.text.split(")", 1)[0]): one.name
        for one in program.computations[called]
        if one.opcode == "parameter"
    }
    places = [place for place, operand in enumerate(user.operands) if operand == array]
    return all(_slices(program, called, parameters[place]) for place in places)
