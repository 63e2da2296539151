"""Lesson 1. One convolution by hand: what it is, how it is computed, and how it is differentiated.

    python examples/one_convolution_by_hand.py

A 5 × 5 picture, a 3 × 3 kernel that answers to vertical edges, and nothing else. We compute the
result three ways and its gradient three ways, and look at every number.
"""

import numpy as np

import minifcn as mf
from minifcn.kernels import im2col_panel
from minifcn.kernels.taps import convolution

picture = np.array(
    [
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ],
    dtype=np.float64,
)
kernel = np.array([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]], dtype=np.float64)


def show(title, array):
    print(f"\n{title}")
    print(np.array2string(array, formatter={"float_kind": "{:5.1f}".format}))


# -- 1. By the definition: slide the kernel, multiply, add ----------------------------------------
# y[p, q] = Σ_{r, s} x[p + r, q + s] · w[r, s]
P, Q = 3, 3  # a 3 × 3 kernel fits at 3 × 3 places of a 5 × 5 picture
by_definition = np.zeros((P, Q))
for p in range(P):
    for q in range(Q):
        for r in range(3):
            for s in range(3):
                by_definition[p, q] += picture[p + r, q + s] * kernel[r, s]
show("The picture", picture)
show("Convolved: large where dark turns to bright from left to right", by_definition)

# -- 2. As a matrix product: lay the pixels under the kernel out as rows (im2col) -----------------
taps = convolution((3, 3), (1, 1), (0, 0), (1, 1), (P, Q))
x = picture[None, :, :, None]  # (N, H, W, C): channels last, as the kernels take it
columns = im2col_panel(x, taps, 0, 9, (P, Q), range(P), slice(0, 1)).reshape(9, 9)
show("im2col: one row an output pixel, one column a tap", columns)
by_im2col = (columns @ kernel.reshape(9)).reshape(P, Q)

# -- 3. By minifcn, which makes that matrix only a panel at a time --------------------------------
X = mf.Tensor(picture[None, None], requires_grad=True)  # (N, C, H, W), as a user sees it
W = mf.Tensor(kernel[None, None], requires_grad=True)  # (K, C, R, S)
print("\n(the first time, Numba compiles the kernels for this processor: some seconds)")
Y = mf.functional.conv2d(X, W)
print("\nthe three agree:", np.array_equal(by_definition, by_im2col), end=" ")
print(np.allclose(by_definition, Y.numpy()[0, 0], atol=1e-12))

# -- 4. The gradient: how much would L = Σ g·y grow with each pixel, each weight? -----------------
g = np.arange(1.0, 10.0).reshape(P, Q)
Y.backward(g[None, None])

# A pixel reached y[p, q] through the tap (r, s) with p + r, q + s = its place: so its gradient
# collects g[p, q] · w[r, s] over them. That is a transposed convolution of g.
by_hand = np.zeros((5, 5))
for p in range(P):
    for q in range(Q):
        by_hand[p : p + 3, q : q + 3] += g[p, q] * kernel
show("dL/dx: the transposed convolution of g", by_hand)
print("minifcn's agrees:", np.allclose(by_hand, X.grad.numpy()[0, 0], atol=1e-12))

# A weight multiplied the pixels of its column of the im2col matrix: so dL/dw = columnsᵀ · g.
show("dL/dw: im2col transposed, times g", (columns.T @ g.reshape(9)).reshape(3, 3))
print(
    "minifcn's agrees:", np.allclose(columns.T @ g.reshape(9), W.grad.numpy().ravel(), atol=1e-12)
)

# And by nothing but the definition of a derivative: wiggle one pixel, watch L.
eps = 1e-6
wiggled = picture.copy()
wiggled[2, 2] += eps
change = (mf.functional.conv2d(mf.Tensor(wiggled[None, None]), W).numpy()[0, 0] - by_definition) * g
print(f"\nwiggling pixel (2, 2): {change.sum() / eps:.6f}, the gradient says {by_hand[2, 2]:.6f}")

# -- 5. All of it at once, first and second derivatives, on random numbers ------------------------
print("\n", mf.check.gradcheck(mf.functional.conv2d, [X, W]), sep="")
