"""The options of every command, and what `--help` says of them.

Nothing heavy is imported here, so that `minifcn --help` answers at once.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from minifcn.cli import argument
from minifcn.errors import InputError


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one sentence, as every other error."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="minifcn",
        description="Fully convolutional networks for semantic segmentation, from scratch.",
    )
    parser.add_argument("--version", action="version", version=f"minifcn {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _add_train(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    _add_data_command(commands)
    _add_summary(commands)
    _add_convert(commands)
    _add_bench(commands)
    commands.add_parser(
        "doctor",
        help="what this machine offers, and how to mend what it lacks",
        description="Devices, driver, CuPy, NVRTC, BLAS, compiler and threads of this machine, "
        "each with the mend if something is missing.",
    )
    _add_selfcheck(commands)
    _add_simulate(commands)
    return parser


def _add_train(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "train",
        help="train an FCN; without options, on the nuclei that come with minifcn",
        description="Train an FCN. Without options: on the nuclei that come with minifcn, in "
        "under two minutes on two cores. Equal settings and data give equal weights, bit by bit.",
        # What was not given is absent, so that the recipe's own value stands.
        argument_default=argparse.SUPPRESS,
    )
    add = command.add_argument_group("data").add_argument
    _add_data(add)
    add("--test-every", type=int, metavar="N", help="layouts nuclei and folder: every "
        "Nth picture by name is for test, and every Nth between for validation")  # fmt: skip
    add(
        "--resize", type=argument.size, metavar="WxH", help="bring every picture to this size first"
    )
    add = command.add_argument_group("model").add_argument
    add("--head", metavar="NAME", help="fcn32s, fcn16s, fcn8s, fcn4s or fcn2s (not on a "
        "ResNet); by default the coarsest that the labels allow")  # fmt: skip
    add("--trunk", metavar="NAME", help="vgg, of the --widths given (default); vgg16, vgg16_bn, "
        "resnet18 or resnet34 as published")  # fmt: skip
    add("--widths", type=argument.widths, metavar="A,B,C,D,E", help="channels of the five "
        "stages (of a ResNet: four)")  # fmt: skip
    add("--padding", type=argument.padding, metavar="same|100", help="of a VGG: convolutions keep "
        "the size (default), or conv1_1 pads by 100 and crops follow, as published")  # fmt: skip
    add("--upsample", choices=("learned", "last-frozen", "frozen"), help="whether interpolation "
        "learns (default), the last step's stays bilinear, or all does")  # fmt: skip
    add("--at-once", type=argument.on_off, metavar="on|off", help="scale a VGG's skips by 0.01, "
        "0.0001, …, to train them at once and not in stages")  # fmt: skip
    add("--weights", metavar="FILE", help="start the trunk from these, under torchvision's names: "
        ".safetensors, or .pth where PyTorch is installed")  # fmt: skip
    add("--from", dest="start", metavar="RUN", help="go on from the net of this run, of a coarser "
        "head: 32s, then 16s, then 8s; its settings stand where no option is given (--head: the "
        "next finer; --layout: told anew of other --data)")  # fmt: skip
    add = command.add_argument_group("training").add_argument
    add("--recipe", choices=("heavy", "batch20"), help="as published: one picture a step, momentum "
        "0.99 and summed loss; or 20 pictures, 0.9 and mean loss. Without --head: fcn32s, the "
        "first stage; any option given stands in its place")  # fmt: skip
    add("--steps", type=int, metavar="N", help="batches to train on")
    add("--batch-size", type=int, metavar="N", help="pictures in a batch")
    add("--gradient-checkpointing", type=argument.on_off, metavar="on|off", help="keep less for "
        "the way back and compute it again: less memory, more time, the same bits")  # fmt: skip
    add("--crop", type=argument.size_or_none, metavar="WxH",
        help="what is cut from a picture at each visit; `none` for whole pictures")  # fmt: skip
    add("--augment", type=argument.on_off, metavar="on|off", help="vary size, side and colours")
    add("--even-kinds", type=float, metavar="X", help="show rare kinds of nuclei pictures more "
        "often: from 0, as they come, to 1, each kind alike")  # fmt: skip
    add("--scale", type=float, metavar="X", help="enlarge or shrink by up to this factor")
    add("--dropout", type=float, metavar="X", help="share of fc6's and fc7's results left out")
    add("--normalise", choices=("dataset", "picture", "imagenet", "caffe"),
        help="by the mean and deviation of the training set or of each picture; or as the "
        "--weights were trained: torchvision's way, or Caffe's (with them, default: as their "
        "file says, else imagenet)")  # fmt: skip
    add("--optimizer", choices=("adam", "sgd"), help="AdamW, or SGD with momentum")
    add("--momentum", type=float, metavar="X", help="of SGD (default: 0.9)")
    add("--lr", type=float, metavar="X", help="learning rate after the warm-up")
    add("--weight-decay", type=float, metavar="X", help="pull of the weights towards zero")
    add("--bias-lr", type=float, metavar="X", help="biases learn at X times the rate")
    add("--bias-decay", type=argument.on_off, metavar="on|off", help="whether --weight-decay pulls "
        "at biases")  # fmt: skip
    add("--schedule", choices=("poly", "cosine", "constant"), help="course of the learning rate")
    add("--warmup", type=int, metavar="N", help="steps over which the learning rate rises")
    add("--class-weights", choices=("none", "balanced"),
        help="balanced: rare classes weigh more (median frequency)")  # fmt: skip
    add("--loss-reduction", choices=("mean", "image", "batch"), help="cross-entropy: mean over the "
        "batch's pixels; over each picture's, then over pictures; sum over pixels ÷ pictures, "
        "which wants an --lr ÷ pixels")  # fmt: skip
    add("--iou-loss", type=float, metavar="X", help="add X times 1 - IoU, made smooth, to the "
        "cross-entropy")  # fmt: skip
    add("--average", type=float, metavar="X", help="share of the weights' moving average kept at "
        "each step; the average is what is scored and saved (0: none)")  # fmt: skip
    add("--eval-every", type=int, metavar="N", help="steps between validations, which also save")
    _add_views(add)
    add("--seed", type=int, metavar="N", help="of the first weights, order and augmentation")
    _add_device(add)
    add = command.add_argument_group("the run").add_argument
    add("--name", metavar="NAME", help="of the run's folder; by default from data and head")
    add("--out", metavar="FOLDER", help="where runs lie (default: runs)")
    add("--resume", metavar="RUN", help="go on with the run in this folder; takes all settings "
        "from it (only --data may be given, if the data have moved, and --device)")  # fmt: skip


def _add_predict(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "predict",
        help="label pictures with a trained model",
        description="For each picture NAME, of any size, write NAME-mask.png (palette indices), "
        "NAME-overlay.png (the classes over the picture, with a legend) and NAME-confidence.png "
        "(grey: probability of the class chosen, 255 = certain).",
    )
    command.add_argument("checkpoint", help="a run's folder, or a .safetensors file in it")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="picture, or folder of them")
    command.add_argument("-o", "--out", required=True, metavar="FOLDER", help="where to write")
    command.add_argument("--stages", action="store_true", help="write NAME-stages.png, too: "
                         "scores of the deepest layer, after each skip, at the end")  # fmt: skip
    _add_views(command.add_argument, default="one")
    _add_device(command.add_argument, default="auto")


def _add_evaluate(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "evaluate",
        help="score a trained model on labelled pictures",
        description="Score a trained model, each class by itself, on the data that it was "
        "trained on or on others.",
    )
    command.add_argument("checkpoint", help="a run's folder, or a .safetensors file in it")
    _add_data(command.add_argument)
    command.add_argument("--split", help="train, val or test (default; val where there is no test)")
    command.add_argument("--confusion", metavar="FILE", help="write the confusion matrix: .csv "
                         "for the counts, .png for a picture")  # fmt: skip
    _add_views(command.add_argument, default="one")
    _add_device(command.add_argument, default="auto")


def _add_compare(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "compare",
        help="several trained models on the same labelled pictures",
        description="Score trained models side by side, class by class, on the data that the first "
        "was trained on or on others; with --out, draw some pictures: image, each model's labels, "
        "truth.",
    )
    command.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT",
                         help="runs' folders, or .safetensors files in them")  # fmt: skip
    _add_data(command.add_argument)
    command.add_argument("--split", help="train, val or test (default; val where there is no test)")
    command.add_argument("--out", metavar="FILE.png", help="where to draw")
    command.add_argument("--pictures", type=argument.count, metavar="N", help="with --out: to "
                         "draw, evenly spread over the split (default: 4)")  # fmt: skip
    _add_views(command.add_argument, default="one")
    _add_device(command.add_argument, default="auto")


def _add_data_command(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "data",
        help="look at labelled pictures before training: splits, classes, ceilings, a sheet",
        description="Say what a folder of labelled pictures holds: its splits, how many pixels "
        "each class has, with the weights that would balance them, what each head could reach at "
        "best, and what needs no network. --out draws some pictures under their labels.",
    )
    command.add_argument("folder", nargs="?", metavar="FOLDER", help="labelled pictures; by "
                         "default the nuclei that come with minifcn")  # fmt: skip
    _add_layout(command.add_argument)
    command.add_argument("--out", metavar="FILE.png", help="draw some training pictures with their "
                         "labels over them")  # fmt: skip


def _add_summary(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "summary",
        help="list the layers of a model: sizes, parameters, multiplications, memory",
        description="List the layers of a model in the order in which they run, with their output, "
        "parameters, multiply-adds, memory of the output and the algorithm of the convolution.",
    )
    command.add_argument("model", metavar="MODEL", help="a run's folder or a .safetensors file in "
                         "it; or a head, such as fcn8s, or TRUNK-HEAD, such as vgg16-fcn8s or "
                         "resnet18-fcn32s")  # fmt: skip
    command.add_argument("--input", type=argument.channels_and_size, default=(3, 256, 256),
                         metavar="CxHxW", help="of one picture (default: 3x256x256)")  # fmt: skip
    command.add_argument("--widths", type=argument.widths, metavar="A,B,C,D,E",
                         help="channels of the stages, for a model by name")  # fmt: skip
    command.add_argument("--classes", type=int, metavar="N",
                         help="number of classes, for a model by name (default: 21)")  # fmt: skip
    command.add_argument("--padding", type=argument.padding, metavar="same|100",
                         help="of a VGG by name: convolutions keep the size (default), or conv1_1 "
                         "pads by 100 and crops follow, as published")  # fmt: skip
    command.add_argument("--train", action="store_true", help="instead: the memory that a training "
                         "step will take, layer by layer, and what is free")  # fmt: skip
    command.add_argument("--batch", type=argument.count, metavar="N",
                         help="with --train: pictures in a batch (default: 1)")  # fmt: skip
    command.add_argument("--gradient-checkpointing", type=argument.on_off, metavar="on|off",
                         help="with --train: as in training")  # fmt: skip


def _add_convert(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "convert",
        help="write a model's weights under torchvision's names",
        description="Write weights as safetensors under torchvision's names: those of a trained "
        "model's trunk, fc6 and fc7, or those of a PyTorch file.",
    )
    command.add_argument("source", metavar="SOURCE", help="a run's folder, a .safetensors file in "
                         "it, or a .pth file (with PyTorch installed)")  # fmt: skip
    command.add_argument("out", metavar="FILE.safetensors", help="where to write")


def _add_bench(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "bench",
        help="measure the engine beside PyTorch and the textbook's way",
        description="Measure layers, training step, prediction, memory, start-up and threads; each "
        "contender in a process of its own, in turns, medians. `layers --rounds 3` takes about two "
        "minutes on two cores, all of it several times that.",
    )
    command.add_argument("suites", nargs="*", type=argument.suite, metavar="SUITE",
                         help="layers, step, predict, memory, startup, threads (default: all "
                         "these); or full: a training step of VGG16's FCN-8s at 500², some minutes"
                         )  # fmt: skip
    command.add_argument("--quick", action="store_true", help="fewer cases and rounds")
    command.add_argument("--rounds", type=int, metavar="N", help="turns of each contender")
    command.add_argument("--out", default="bench", metavar="FOLDER",
                         help="where bench.json and bench.png go (default: bench)")  # fmt: skip


def _add_selfcheck(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "selfcheck",
        help="hold a device against the reference: kernels, gradients, training; then its speed",
        description="Every kernel against the NumPy definition on awkward shapes, gradient checks, "
        "training steps against the CPU's, repetitions for equal bits; on a GPU then times, GB/s "
        "and FLOP/s beside PyTorch's where that is installed. It ends in 1 if something differs.",
    )
    command.add_argument("--device", choices=("auto", "cuda", "cuda-sim", "cpu"), default="auto",
                         help="what to check (default: cuda where that works)")  # fmt: skip
    command.add_argument("--json", metavar="FILE", help="write everything found there")


def _add_simulate(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "simulate",
        help="run a CUDA kernel on the CPU, check it and count its memory traffic",
        description="Run an operation's CUDA kernels on the CPU, forward and backward, on random "
        "numbers; say whether anything was at fault (out of bounds, races, barriers, shuffles, "
        "overflow), and print the memory traffic of each source line. It ends in 1 at a fault.",
    )
    command.add_argument("kernel", nargs="?", metavar="KERNEL",
                         help="such as max_pool2d; left out: list them")  # fmt: skip
    command.add_argument("--size", type=argument.shape, default=(1, 16, 28, 28), metavar="NxCxHxW",
                         help="of the input (default: 1x16x28x28)")  # fmt: skip


def _add_data(add) -> None:  # type: ignore[no-untyped-def]
    add("--data", metavar="FOLDER", help="labelled pictures; by default the nuclei that come "
        "with minifcn")  # fmt: skip
    _add_layout(add)


def _add_layout(add) -> None:  # type: ignore[no-untyped-def]
    add("--layout", choices=("voc", "sbd", "camvid", "cityscapes", "folder", "nuclei"),
        help="of the folder (default: told by what lies in it): PASCAL VOC's, SBD's, CamVid's "
        "train and trainannot, Cityscapes', images/ and masks/, or these with nuclei")  # fmt: skip
    add("--classes", metavar="FILE", help="names of the classes, one a line (layouts voc and "
        "folder; by default the folder's classes.txt)")  # fmt: skip


def _add_views(add, **settings) -> None:  # type: ignore[no-untyped-def]
    add("--views", choices=("one", "mirrored", "turned"), help="average the answers for a picture "
        "and its mirror, or for all turns and mirrors: a little better, 2 or 8 times the time",
        **settings)  # fmt: skip


def _add_device(add, **settings) -> None:  # type: ignore[no-untyped-def]
    add("--device", choices=("auto", "cpu", "cuda", "cuda-sim", "reference"), help="auto: cuda "
        "where that works, else cpu; cuda: an NVIDIA GPU; cpu: compiled, fast; reference: plain "
        "NumPy, slow; cuda-sim: the GPU's kernels on the CPU, slower", **settings)  # fmt: skip


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("minifcn")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "(not installed)"
