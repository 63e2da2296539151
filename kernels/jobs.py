"""Jobs: a compiled function that is called once for each number of a range, on all threads.

    share_out(job, count, (a, b))        job(i, a, b)  for i = 0 … count − 1

Numba's own way, a loop over `prange`, analyses the loop's body, compiles it as a function of
another kind and, where arguments are many, spends as long again on handing them over: more than
half of the time that a kernel took to compile. So there is one such loop here for all kernels, and
it calls the job by its address. (Loops over single elements keep their own `prange`: a call for
each would cost more than the element.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import get_num_threads, njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.ufunc import parallel

from minifcn.kernels.compiled import serial
from minifcn.kernels.runs import LINE, STAYS, begin, on_stack, taken
from minifcn.kernels.vector import INT64


def threads() -> int:
    """On how many threads jobs are shared out: what `numba.get_num_threads` says."""
    return int(_counter()())


@cache
def _counter() -> Callable[[], int]:
    """Numba's own function behind `numba.get_num_threads`.

    That one first takes two locks to see that the threads were started, which in a training step
    takes as long as ten kernels' calls: once is enough.
    """
    get_num_threads()
    return getattr(parallel, "_get_num_threads", get_num_threads)


#: machine code that calls a job: of the address where its arguments stand, and of its number
CALLER = ir.FunctionType(ir.VoidType(), [INT64, INT64])


@intrinsic
def share_out(typing, job, count, arguments):  # type: ignore[no-untyped-def]
    """Call ``job(i, *arguments)`` for i = 0 … ``count`` − 1, each thread a run of them: see `runs`.

    ``job`` is a function compiled by `compiled.serial`, whose result and errors nobody sees: it may
    not raise, nor allocate. ``arguments`` is a tuple. `numba.get_thread_id` tells a job the memory
    that is its thread's own.
    """
    n = types.int64
    signature = types.void(job, n, arguments)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        _, count, values = args
        place = cgutils.alloca_once_value(builder, values)
        caller = _caller(context, builder.module, job, arguments, values.type)
        address, data = (builder.ptrtoint(pointer, INT64) for pointer in (caller, place))
        _call(context, builder, _call_each, (n, n, n), [address, data, count])
        return context.get_dummy_value()

    return signature, code


def _caller(context: Any, module: Any, job: Any, arguments: Any, kind: Any) -> Any:
    """A `CALLER` of the job, which finds its arguments as a value of LLVM's ``kind``."""
    function = ir.Function(module, CALLER, module.get_unique_name("caller"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    place, number = function.args
    values = builder.load(builder.inttoptr(place, kind.as_pointer()))
    each = [
        _borrowed(context, builder, kind, builder.extract_value(values, i))
        for i, kind in enumerate(arguments.types)
    ]
    signature = types.int64, *arguments.types
    _call(context, builder, job.dispatcher, signature, [number, *each])
    builder.ret_void()
    return function


def _borrowed(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """An array as if nobody owned it: threads would wait for each other to count its views."""
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = ir.Constant(array.meminfo.type, None)
    return array._getvalue()


def _call(context: Any, builder: Any, function: Any, signature: Any, args: Any) -> None:
    """Call a compiled function; compile it for these types if it is not yet."""
    function.compile(signature)
    result = function.overloads[signature]
    made = context.get_function(result.entry_point, result.signature)
    context.add_linking_libs(made.libs)
    context.call_internal_no_propagate(builder, result.fndesc, result.signature, args)


@serial
def _work(caller, arguments, runs, team, own, stay):  # type: ignore[no-untyped-def]
    """Call the jobs of one's own run, and then those of others', where more than some ``stay``."""
    for further in range(team):
        run, front = runs + (own + further) % team * LINE, further == 0
        number = taken(run, front, 0 if front else stay)
        while number >= 0:
            _call_one(caller, arguments, number)
            number = taken(run, front, 0 if front else stay)


# Not kept on disk: a kernel that is compiled beside it starts the threads whenever it is loaded.
# One that was compiled beside a copy from the disk would not, and crash as the first to run.
@njit(nogil=True, parallel=True)
def _call_each(caller, arguments, count):  # type: ignore[no-untyped-def]
    team = max(0, min(_threads(), count))
    runs = on_stack(team)
    begin(runs, team, count)
    if team > 1:
        for own in prange(team):
            _work(caller, arguments, runs, team, own, count // (STAYS * team))
    elif team == 1:  # to wake the other threads would take longer than many a job
        _work(caller, arguments, runs, team, np.int64(0), np.int64(0))


@intrinsic
def _threads(typing):  # type: ignore[no-untyped-def]
    """`numba.get_num_threads` by its name: by its address, as Numba has it, no caller is kept."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(INT64, [])
        counter = cgutils.get_or_insert_function(builder.module, kind, "get_num_threads")
        return builder.call(counter, [])

    return types.int64(), code


@intrinsic
def _call_one(typing, caller, arguments, number):  # type: ignore[no-untyped-def]
    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.call(builder.inttoptr(args[0], CALLER.as_pointer()), args[1:])
        return context.get_dummy_value()

    n = types.int64
    return types.void(n, n, n), code
