"""Commands of the `jaxvision` program beside training: one file a command, listed in `COMMANDS`.

A command is a module whose docstring's first line says what it does, with
`add_arguments(parser)` and `run(options, overrides)`; `overrides` are the `--config.KEY=VALUE`
of the command line. Modules are light at import: JAX and what needs it is imported inside `run`.
"""

from types import ModuleType

from jaxvision.commands import classify, cluster, export_torch, inspect, retrieve, search, visualize

COMMANDS: dict[str, ModuleType] = {
    "classify": classify,
    "cluster": cluster,
    "retrieve": retrieve,
    "export-torch": export_torch,
    "inspect": inspect,
    "visualize": visualize,
    "search": search,
}
