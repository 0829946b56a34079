"""Variables of a task with several networks: under each kind a branch for each of them."""

from collections.abc import Collection, Mapping

from jaxvision.tasks.base import Variables


def join(networks: Mapping[str, Variables]) -> Variables:
    """The variables of all, by the networks' own, which are kind by kind."""
    kinds = {kind for own in networks.values() for kind in own}
    return {
        kind: {name: own.get(kind, {}) for name, own in networks.items()} for kind in sorted(kinds)
    }


def part(name: str, variables: Variables, apart: Collection[str] = ()) -> Variables:
    """One network's own variables; kinds `apart` are of none."""
    return {kind: tree[name] for kind, tree in variables.items() if kind not in apart}


def put(name: str, variables: Variables, own: Variables) -> Variables:
    """The variables of all, with one network's own in their places."""
    return {**variables, **{kind: {**variables[kind], name: tree} for kind, tree in own.items()}}
