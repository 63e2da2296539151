"""The command `minifcn`: which command runs, and what becomes of errors.

Nothing heavy is imported here, so that `minifcn --help` answers at once; each command imports
what it needs when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from minifcn.cli.options import build_parser
from minifcn.errors import InputError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when done, 2 for bad input, 130 when interrupted."""
    try:
        return _run(argv)
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("minifcn: interrupted; nothing was left half written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output, such as `head`, has gone: nothing is left to say to it.
        sys.stderr.close()
        return EXIT_INTERRUPTED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        return _refuse(f"{where}{reason}; check that the file and its folder can be used")
    except MemoryError:
        return _refuse("the memory is not enough; use smaller pictures, crops, batches or widths")


def _refuse(sentence: str) -> int:
    print(f"minifcn: {' '.join(sentence.split())}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as leave:  # --help and --version
        return int(leave.code or 0)
    if arguments.command is None:
        parser.print_help()
        return 0
    if arguments.command == "train":
        from minifcn.cli.train import train

        return train(arguments)
    if arguments.command == "predict":
        from minifcn.cli.predict import predict

        return predict(arguments)
    if arguments.command == "data":
        from minifcn.cli.data import data

        return data(arguments)
    if arguments.command == "summary":
        from minifcn.cli.summary import summary

        return summary(arguments)
    if arguments.command == "convert":
        from minifcn.cli.convert import convert

        return convert(arguments)
    if arguments.command == "doctor":
        from minifcn.cli.doctor import doctor

        return doctor()
    if arguments.command == "selfcheck":
        from minifcn.cli.selfcheck import selfcheck

        return selfcheck(arguments)
    if arguments.command == "simulate":
        from minifcn.cli.simulate import simulate

        return simulate(arguments)
    if arguments.command == "bench":
        from minifcn.cli.bench import bench

        return bench(arguments)
    if arguments.command == "compare":
        from minifcn.cli.compare import compare

        return compare(arguments)
    from minifcn.cli.evaluate import evaluate

    return evaluate(arguments)
