"""Write what a network predicts as a program that runs without this package (StableHLO)."""

import argparse
from pathlib import Path

from jaxvision.commands import source
from jaxvision.commands.predict import sides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", help="file to write, ends in .jaxexport")
    source.add_arguments(parser)
    parser.add_argument(
        "--size", help="of prepared images: a side or HEIGHTxWIDTH (default: as in training)"
    )
    parser.add_argument(
        "--platforms", default="cpu,cuda,tpu", help="to compile for (default: cpu,cuda,tpu)"
    )


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision.runs import exporting

    output = Path(options.output).expanduser()
    exporting.check_ending(output)
    size = sides(options.size, "--size") if options.size else None
    chosen = source.open_run(options, overrides)
    program = exporting.export(chosen, size, tuple(options.platforms.split(",")))
    written = exporting.write(program, output)
    about = program.about
    shape = ", ".join(map(str, about["input"]["shape"]))
    print(
        f"Wrote {output} ({written / 1e6:.1f} MB): uint8 [{shape}] to {', '.join(about['outputs'])}"
    )
    print(f"What it takes and gives: {output.with_suffix('.json')}. It is called by")
    print("  jax.export.deserialize(bytearray(open(FILE, 'rb').read())).call(images)")
    if not about["preparation_gives_one_size"]:
        print(f"Images must have this size: the preparation of {about['network']} does not fix it.")
