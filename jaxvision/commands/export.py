"""Write what a network predicts as a program that runs without this package (StableHLO).

    jaxvision export digits.jaxexport --workdir runs/digits
    jaxvision export generator.jaxexport --workdir runs/digits_dcgan
    jaxvision export digits.onnx --workdir runs/digits

Of a network that makes images, and with `--samples` of one that can do either, the program is of
what `jaxvision sample` draws. A file that ends in .onnx is written by jax2onnx, the extra `onnx`.
"""

import argparse
from pathlib import Path

from jaxvision.commands import source
from jaxvision.commands.predict import sides
from jaxvision.commands.sample import add_settings, settings_of
from jaxvision.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", help="file to write, ends in .jaxexport or .onnx")
    source.add_arguments(parser)
    parser.add_argument(
        "--size", help="of prepared images: a side or HEIGHTxWIDTH (default: as in training)"
    )
    parser.add_argument("--platforms", help="to compile a .jaxexport for (default: cpu,cuda,tpu)")
    parser.add_argument("--licence", default="", help="of the weights, to be said beside them")
    parser.add_argument("--samples", action="store_true", help="what is drawn, not predicted")
    add_settings(parser)


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision.runs import exporting, onnx
    from jaxvision.tasks.sampling import AS_TRAINED

    output = Path(options.output).expanduser()
    exporting.check_ending(output)
    size = sides(options.size, "--size") if options.size else None
    chosen = source.open_run(options, overrides)
    platforms = tuple(options.platforms.split(",")) if options.platforms else exporting.PLATFORMS
    draws, settings = options.samples or not hasattr(chosen.task, "predict"), settings_of(options)
    if draws and size:
        raise UserError("Samples have the size that the network makes; leave --size out.")
    if not draws and settings != AS_TRAINED:
        raise UserError("Truncation, guidance, steps and sampler are of samples; give --samples.")
    as_onnx = output.suffix == exporting.ONNX
    if as_onnx and options.platforms:
        raise UserError("ONNX is for no platforms of JAX; leave --platforms out.")
    if as_onnx and draws:
        raise UserError("Samples want random numbers, which ONNX lacks; write a .jaxexport.")
    if draws:
        program = exporting.export_samples(chosen, settings, platforms)
    elif as_onnx:
        program = onnx.export(chosen, size)
    else:
        program = exporting.export(chosen, size, platforms)
    written = exporting.write(program, output, options.licence)
    about = program.about
    inputs = about["input"] if draws else {"images": about["input"]}
    taken = [f"{one['dtype']} [{', '.join(map(str, one['shape']))}]" for one in inputs.values()]
    given = ", ".join(about["outputs"])
    print(f"Wrote {output} ({written / 1e6:.1f} MB): {' and '.join(taken)} to {given}")
    print(f"What it takes and gives: {output.with_suffix('.json')}. It is called by")
    if as_onnx:
        print("  onnxruntime.InferenceSession(FILE).run(None, {'images': images})")
    else:
        called = ", ".join(inputs)
        print(f"  jax.export.deserialize(bytearray(open(FILE, 'rb').read())).call({called})")
    if not about.get("preparation_gives_one_size", True):
        print(f"Images must have this size: the preparation of {about['network']} does not fix it.")
