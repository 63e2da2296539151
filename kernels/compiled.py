"""How kernels are compiled: to machine code that is kept on disk, without Python's lock.

Division goes by NumPy's rules (by zero it gives infinity or NaN): Python's, which raise, cost a
branch at every quotient and a tenth of the time to compile.

A number that stands in the code and is handed to another function is a type of its own for Numba,
and that function is compiled once more for it. So such a number is handed over as ``np.int64(0)``.

What Python does not call needs no code that takes Python's objects apart: with thirty arguments
that is as much again as many a function has of its own, and together an eighth of the time.
"""

from numba import njit

#: for a function that Python calls, and that runs on its thread
kernel = njit(cache=True, nogil=True, error_model="numpy")
#: for a function that other compiled ones call; a call from Python would crash
serial = njit(
    cache=True, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)
#: for a loop over `prange`, shared out among threads; a kernel whose work is in pieces uses `jobs`
parallel = njit(cache=True, nogil=True, error_model="numpy", parallel=True)
