"""Derivatives against finite differences, in float64, with a random upstream gradient.

For a function y = f(x) and a random u, the analytic derivative of ⟨u, f(x)⟩ along an entry (or a
direction) d is compared with the central difference ⟨u, f(x + εd) − f(x − εd)⟩ ÷ 2ε. Outputs are
subtracted before they are summed: those that do not depend on the entry then cancel exactly.

A central difference cannot be trusted next to a corner (ReLU at 0) or a tie (two equal maxima).
Where it disagrees, or where the slopes of the two sides differ, the step is shortened:
- If the sides meet as the step shrinks, the function is smooth here and a corner lay within the
  longer step at most: the step that agrees best judges. A wrong derivative agrees with none.
- If they do not meet there is no derivative. A value between the slopes of the two sides, summed
  output by output, is as good as any: the verdict is "kink". A value outside is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn.check.report import InputReport, Report, Verdict, worst_verdict
from minifcn.errors import InputError
from minifcn.graph import grad
from minifcn.recording import enable_grad, no_grad
from minifcn.tensor import Tensor

SHRINK = (1.0, 1 / 8, 1 / 64)
"""The steps tried at a suspicious place, in units of ε. Powers of two, so that only the outputs
round; not much finer, because the rounding of float64 (2e-16 ÷ ε) would then outweigh rtol."""

SUSPICION = 1e-3
"""The sides' slopes of a smooth function differ by ε·f'': more than this, relatively, is looked
into even where the central difference agrees (|x| at 0 has the central difference 0)."""


@dataclass(frozen=True)
class _Slopes:
    """⟨u, f⟩'s slopes around a point at one step, and the interval of its subgradients."""

    central: float
    gap: float  # Σ |u|·|right − left| over the outputs
    low: float  # Σ min(u·left, u·right): outputs may choose their side each for itself
    high: float
    noise: float  # what rounding of the outputs can add to `central`, to first order


@dataclass(frozen=True)
class _Finding:
    """What was found along one direction."""

    place: tuple[int, ...] | str
    analytic: float
    numeric: float
    error: float
    verdict: Verdict


class _Probe:
    """Evaluates ⟨u, f⟩ around a point by moving one input in place, and puts it back."""

    def __init__(self, fn: Callable[..., Any], inputs: Sequence[Tensor], seed: int) -> None:
        self.fn, self.inputs = fn, inputs
        self.here = self.evaluate()
        again = self.evaluate()
        for a, b in zip(self.here, again, strict=True):
            if not np.array_equal(a, b, equal_nan=True):
                raise InputError(
                    "gradcheck: fn gave two values for the same inputs, it must be a function of "
                    "its inputs alone; make a random generator anew inside fn, from a seed"
                )
            if a.dtype != np.float64:
                raise InputError(
                    f"gradcheck: fn returned {a.dtype}, finite differences need float64; "
                    "keep the whole function in float64"
                )
        # Not default_rng(seed), nor [seed, 0] which is the same: the inputs may come from that.
        rng = np.random.default_rng([seed, 1])
        self.upstream = [rng.standard_normal(y.shape) for y in self.here]

    def evaluate(self) -> list[np.ndarray]:
        with no_grad():
            return [y.numpy().copy() for y in _as_tuple(self.fn(*self.inputs))]

    def at(self, x: Tensor, moved: np.ndarray) -> list[np.ndarray]:
        """Give the outputs with x set to `moved`; x holds its old value again afterwards."""
        kept = x.data.copy()
        try:
            _write(x, moved)
            return self.evaluate()
        finally:
            _write(x, kept)

    def slopes(self, x: Tensor, direction: np.ndarray, step: float) -> _Slopes:
        """Measure the slopes of both sides along `direction` with one step length."""
        ahead = self.at(x, x.data + step * direction)
        behind = self.at(x, x.data - step * direction)
        central = gap = low = high = noise = 0.0
        for up, here, down, u in zip(ahead, self.here, behind, self.upstream, strict=True):
            right, left = u * (up - here) / step, u * (here - down) / step
            central += float((u * (up - down)).sum()) / (2 * step)
            gap += float(np.abs(right - left).sum())
            low += float(np.minimum(right, left).sum())
            high += float(np.maximum(right, left).sum())
            noise += float(np.abs(u * here)[up != down].sum()) * 4 * 2.0**-52 / step
        return _Slopes(central, gap, low, high, noise)

    def judge(
        self,
        x: Tensor,
        direction: np.ndarray,
        place: tuple[int, ...] | str,
        analytic: float,
        scale: float,
        eps: float,
        rtol: float,
    ) -> _Finding:
        """Compare one directional derivative; `scale` is the least size errors are measured by."""

        def error(numeric: float) -> float:
            e = float(abs(analytic - numeric) / max(abs(analytic), abs(numeric), scale))
            return e if e == e else float("inf")

        first = self.slopes(x, direction, eps)
        size = max(abs(analytic), abs(first.central), scale)
        if error(first.central) <= rtol and first.gap <= SUSPICION * size + first.noise:
            return _Finding(place, analytic, first.central, error(first.central), "right")

        found = [first, *(self.slopes(x, direction, eps * s) for s in SHRINK[1:])]
        last = found[-1]
        margin = rtol * size + 2 * last.noise
        # A corner here keeps the sides' slopes apart (a jump drives them apart); curvature alone
        # brings them together in proportion to the step, 64 times closer at the last.
        if last.gap > max(first.gap / 4, 10 * margin):
            within = last.low - margin <= analytic <= last.high + margin
            verdict: Verdict = "kink" if within else "wrong"
            return _Finding(place, analytic, last.central, error(last.central), verdict)
        best = min(found, key=lambda s: error(s.central))
        verdict = "right" if error(best.central) <= rtol else "wrong"
        return _Finding(place, analytic, best.central, error(best.central), verdict)


def gradcheck(
    fn: Callable[..., Any],
    inputs: Sequence[Tensor] | Tensor,
    *,
    eps: float = 1e-6,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    entries: int | None = None,
    directions: int = 2,
    seed: int = 0,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> Report:
    """Compare the gradient of fn, input by input, with central differences.

    Args:
        fn: called as fn(*inputs), returns a Tensor or a tuple of Tensors, float64, any shape. It
            must give the same value for the same inputs. It may also read the inputs by closure
            (the parameters of a network): they are moved in place and put back.
        inputs: Tensors; those that want a gradient are checked and must be float64.
        eps: the step ε, in the inputs' units. Keep values that compete (the entries of a
            max-pooling window, a ReLU's input and 0) further apart than this.
        rtol: the largest relative error that is called right. An error is measured against the
            largest of the analytic value, the numeric value, the root mean square of that input's
            gradient, and atol/rtol.
        atol: errors below this are rounding, whatever the gradient's size.
        entries: how many random entries of each input to check; None for all of them. Each costs
            two calls of fn.
        directions: how many random directions to check in addition, in each of which every entry
            moves by ±ε at once: a whole gradient for two calls of fn.
        seed: of the upstream gradient, the entries and the directions.
        names: what the report calls the inputs, one for each; "input 0", … if None.
        title: the report's first line; the function's name if None.

    Returns:
        A Report, true if every derivative is right; its verdict tells a kink from a mistake.

    Raises:
        InputError: names and inputs differ in number, no input wants a gradient, an input or
            output is not float64, or fn is not a function of its inputs alone.
    """
    inputs = _as_tuple(inputs)
    checked = _checked(inputs)
    if names is not None and len(names) != len(inputs):
        raise InputError(
            f"gradcheck: {len(names)} names for {len(inputs)} inputs; give one for each, in order"
        )
    probe = _Probe(fn, inputs, seed)
    with enable_grad():
        outputs = _as_tuple(fn(*inputs))
        attached = [(y, u) for y, u in zip(outputs, probe.upstream, strict=True) if y.requires_grad]
        gradients: Sequence[Tensor | None] = [None] * len(checked)
        if attached:
            ups = [Tensor(u) for _, u in attached]
            gradients = grad(
                [y for y, _ in attached], [x for _, x in checked], ups, allow_unused=True
            )
    reports = []
    for (index, x), gradient in zip(checked, gradients, strict=True):
        g = np.zeros(x.shape) if gradient is None else gradient.numpy()
        if g.shape != tuple(x.shape):
            raise InputError(
                f"gradcheck: input {index} has shape {tuple(x.shape)} but its gradient has shape "
                f"{g.shape}; let backward return one gradient of each input's own shape"
            )
        findings = []
        rms = float(np.sqrt(np.mean(g * g))) if g.size else 0.0
        for direction, place in _directions(g.shape, entries, directions, [seed, 2, index]):
            with np.errstate(invalid="ignore"):  # infinite entries: the sum is NaN, and wrong
                analytic = float((g * direction).sum())
            # Σ ±g over n entries is about √n·rms.
            typical = rms * (float(np.sqrt(g.size)) if isinstance(place, str) else 1.0)
            scale = max(typical, atol / rtol)
            findings.append(probe.judge(x, direction, place, analytic, scale, eps, rtol))
        reports.append(_summary(f"input {index}" if names is None else names[index], g, findings))
    return Report(title or str(getattr(fn, "__name__", type(fn).__name__)), tuple(reports))


def gradgradcheck(
    fn: Callable[..., Any],
    inputs: Sequence[Tensor] | Tensor,
    *,
    eps: float = 1e-6,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    entries: int | None = None,
    directions: int = 2,
    seed: int = 0,
    title: str | None = None,
) -> Report:
    """Compare second derivatives of fn with differences of its first derivatives.

    It is `gradcheck` of the function that takes the inputs and random upstream gradients to the
    gradients of the inputs; the upstream gradients are the last inputs in the report.

    Args and errors are those of `gradcheck`.
    """
    inputs = _as_tuple(inputs)
    checked = [x for _, x in _checked(inputs)]
    rng = np.random.default_rng([seed, 3])
    with no_grad():
        shapes = [tuple(y.shape) for y in _as_tuple(fn(*inputs))]
    upstream = [Tensor(rng.standard_normal(s), requires_grad=True) for s in shapes]
    count = len(inputs)

    def first_derivatives(*everything: Tensor) -> tuple[Tensor, ...]:
        with enable_grad():
            outputs = _as_tuple(fn(*everything[:count]))
            pairs = [
                (y, u) for y, u in zip(outputs, everything[count:], strict=True) if y.requires_grad
            ]
            if not pairs:
                raise InputError(
                    "gradgradcheck: no output of fn depends on an input that wants a gradient; "
                    "check for a detach() or no_grad in fn"
                )
            gradients = grad(
                [y for y, _ in pairs],
                checked,
                [u for _, u in pairs],
                create_graph=True,
                allow_unused=True,
            )
        return tuple(g for g in gradients if g is not None)

    name = title or f"{getattr(fn, '__name__', type(fn).__name__)}, second derivatives"
    return gradcheck(
        first_derivatives,
        [*inputs, *upstream],
        eps=eps,
        rtol=rtol,
        atol=atol,
        entries=entries,
        directions=directions,
        seed=seed,
        title=name,
    )


def _as_tuple(value: Any) -> tuple[Tensor, ...]:
    """Give a Tensor as a tuple of one, and several as a tuple."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    for v in values:
        if not isinstance(v, Tensor):
            raise InputError(
                f"gradcheck: expected Tensors as inputs and outputs, found {type(v).__name__}; "
                "wrap arrays in Tensor and close over everything else in fn"
            )
    return values


def _checked(inputs: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
    """Give the inputs that want a gradient, with their positions; refuse any not in float64."""
    checked = [(i, x) for i, x in enumerate(inputs) if x.requires_grad]
    if not checked:
        raise InputError(
            "gradcheck: no input wants a gradient; make at least one with requires_grad=True"
        )
    for i, x in checked:
        if x.dtype != np.float64:
            raise InputError(
                f"gradcheck: input {i} is {x.dtype}, finite differences need float64; "
                "make it with dtype float64"
            )
        if not getattr(x.data.flags, "writeable", True):  # CuPy has no read-only arrays
            raise InputError(
                f"gradcheck: input {i} is read-only and cannot be moved in place; pass a copy"
            )
    return checked


def _directions(
    shape: tuple[int, ...], entries: int | None, directions: int, seed: list[int]
) -> Iterator[tuple[np.ndarray, tuple[int, ...] | str]]:
    """Give unit vectors of entries (all, or a random choice), then random vectors of ±1."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    chosen: Sequence[int] | np.ndarray = range(size)
    if entries is not None and entries < size:
        chosen = np.sort(rng.choice(size, entries, replace=False))
    for flat in chosen:
        direction = np.zeros(size)
        direction[flat] = 1.0
        yield direction.reshape(shape), tuple(int(i) for i in np.unravel_index(flat, shape))
    for i in range(directions if size > 1 else 0):
        yield rng.choice([-1.0, 1.0], shape), f"direction {i}"


def _summary(name: str, gradient: np.ndarray, findings: Sequence[_Finding]) -> InputReport:
    """Draw up one input's line: the worst entry that decides its verdict."""
    verdict = worst_verdict([f.verdict for f in findings])
    deciding = [f for f in findings if f.verdict == verdict]
    # An entry says more than a direction.
    deciding = [f for f in deciding if isinstance(f.place, tuple)] or deciding
    worst = max(deciding, key=lambda f: f.error, default=_Finding((), 0.0, 0.0, 0.0, "right"))
    if verdict == "kink":  # errors say nothing there, the first place is the one to look at
        worst = deciding[0]
    along = sum(isinstance(f.place, str) for f in findings)
    return InputReport(
        name=name,
        shape=gradient.shape,
        entries=len(findings) - along,
        directions=along,
        kinks=sum(f.verdict == "kink" for f in findings),
        error=worst.error,
        place=worst.place,
        analytic=worst.analytic,
        numeric=worst.numeric,
        largest=float(np.abs(gradient).max(initial=0.0)),
        verdict=verdict,
    )


def _write(x: Tensor, value: np.ndarray) -> None:
    """Put values into a leaf in place, and say so to whoever keeps something made from it."""
    x.data[...] = value
    x._version += 1
