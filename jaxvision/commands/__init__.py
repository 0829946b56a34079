"""Commands of the `jaxvision` program: one file a command, listed in `COMMANDS`.

A command is a module whose docstring's first line says what it does, with
`add_arguments(parser)` and `run(options, overrides)`; `overrides` are the `--config.KEY=VALUE`
of the command line. Modules are light at import: JAX and what needs it is imported inside `run`.
"""

from types import ModuleType

from jaxvision.commands import (
    classify,
    cluster,
    config,
    data,
    evaluate,
    export,
    export_torch,
    info,
    inspect,
    predict,
    probe,
    rcnn,
    report,
    retrieve,
    sample,
    search,
    serve,
    train,
    visualize,
)

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "evaluate": evaluate,
    "report": report,
    "predict": predict,
    "sample": sample,
    "serve": serve,
    "info": info,
    "config": config,
    "data": data,
    "inspect": inspect,
    "visualize": visualize,
    "export": export,
    "export-torch": export_torch,
    "classify": classify,
    "cluster": cluster,
    "probe": probe,
    "rcnn": rcnn,
    "retrieve": retrieve,
    "search": search,
}
