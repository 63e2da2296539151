"""The four ways in which minifcn says no. Each message names what was found and the mend."""


class InputError(ValueError):
    """What the user gave (a file, a folder, an option) cannot be used.

    The message is one sentence that names the file or the argument, the value found, what was
    wanted, and the mend. The command line prints it as it is and exits with code 2.
    """


class ShapeError(ValueError):
    """An operation was given an array of the wrong shape or dtype.

    The message names the operation, the argument, the shape found and the shape wanted.
    """


class DeviceError(TypeError):
    """An operation was given arrays of different devices, which it does not move by itself.

    The message names the operation, the argument, both devices and how to move one.
    """


class GraphError(RuntimeError):
    """The graph of operations cannot be differentiated as asked: freed, not scalar, overwritten."""


def one_line(error: Exception) -> str:
    """What an exception says, in one line without a full stop, to stand inside a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
