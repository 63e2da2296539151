"""How kernels are compiled: to machine code that is kept on disk, without Python's lock.

Division goes by NumPy's rules (by zero it gives infinity or NaN): Python's, which raise, cost a
branch at every quotient and a tenth of the time to compile.

A number that stands in the code and is handed to another function is a type of its own for Numba,
and that function is compiled once more for it. So such a number is handed over as ``np.int64(0)``.
"""

from numba import njit

#: for a function of one thread, called by others
serial = njit(cache=True, nogil=True, error_model="numpy")
#: for a loop over `prange`, shared out among threads; a kernel whose work is in pieces uses `jobs`
parallel = njit(cache=True, nogil=True, error_model="numpy", parallel=True)
