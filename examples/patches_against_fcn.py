"""Lesson 5. The patch-wise method and the fully convolutional net: one answer, two prices.

    python examples/patches_against_fcn.py           about a minute on two cores

To label each pixel, classify the 15 × 15 window about it: that is how pixels were classified before
fully convolutional nets. Neighbouring windows overlap by 14 columns in 15, and whatever is computed
in the overlap is computed again. The same net, run over the whole picture, computes it once. How
much that is, is counted and timed here, on a real picture; then with growing windows and pictures.
It writes runs/patches_against_fcn.png.

For the two to give the same, the net must not pad (the picture is mirrored at its edge instead, for
both), and its pool of stride 2 must keep all places: `to_dense` takes stride 1 and opens the
windows behind it by holes. At stride 2 the net gives every second row and column of the scores.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minifcn as mf
from minifcn.data import normalise, nuclei, otsu
from minifcn.metrics import ConfusionMatrix
from minifcn.models import classify_patches, enlarge, small_classifier, windows_about
from minifcn.study import patches_against_fcn
from minifcn.study.pictures import visible

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
generator = np.random.default_rng(args.seed)

# -- 1. a classifier of 15×15 windows --------------------------------------------------------------

SIDE, BATCH = 15, 256
train = nuclei.load("train")
samples = [train[i] for i in range(len(train))]
windows = [windows_about(normalise(s.image), SIDE) for s in samples]  # views: nothing is cut yet
classifier = small_classifier(2, SIDE, stages=((16, 16), (32,)), generator=generator)
optimizer = mf.optim.Adam(classifier.parameters(), lr=2e-3)
schedule = mf.optim.PolyLR(optimizer, total_steps=args.steps)
start = time.perf_counter()
for _ in range(args.steps):
    picked, classes = [], []
    for i in generator.integers(len(samples), size=8):  # from each of 8 pictures as many windows
        rows, columns = generator.integers(samples[i].label.shape, size=(BATCH // 8, 2)).T
        picked.append(windows[i][rows, columns])
        classes.append(samples[i].label[rows, columns])
    scores = classifier(mf.Tensor(np.concatenate(picked).transpose(0, 3, 1, 2)))
    loss = mf.functional.cross_entropy(scores, np.concatenate(classes))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
print(f"trained on {args.steps * BATCH:,} windows in {time.perf_counter() - start:.0f} s\n")

# -- 2. one picture, three ways --------------------------------------------------------------------

test = nuclei.load("test")
sample = next(s for s in (test[i] for i in range(len(test))) if s.label.mean() > 0.2)
picture = normalise(sample.image)
result = patches_against_fcn(classifier, picture)
print(result)
assert result.dense.difference < 1e-4 and result.at_stride.difference < 1e-4

pixels, corner = picture[..., 0].size, picture[:16, :16]
classify_patches(classifier, corner, batch_size=1)
start = time.perf_counter()
classify_patches(classifier, corner, batch_size=1)
alone = (time.perf_counter() - start) / corner[..., 0].size
print(
    f"\na pixel takes {alone * 1e6:.0f} µs where windows are classified one by one (the first "
    f"{corner[..., 0].size}), {result.patches.seconds / pixels * 1e6:.0f} µs in batches, "
    f"{result.dense.seconds / pixels * 1e6:.1f} µs dense"
)

# -- 3. what comes out -----------------------------------------------------------------------------


def labels(way):
    """Scores (2, P, Q) → classes (H, W); at stride those between the cells are bilinear."""
    step = result.stride if way is result.at_stride else 1
    return enlarge(way.scores, step, result.size).argmax(axis=0)


def iou(found):
    matrix = ConfusionMatrix(2)
    matrix.update(sample.label, found)
    return matrix.iou()[1]


ways = (result.patches, result.dense, result.at_stride)
apart = (labels(result.patches) != labels(result.dense)).sum()
print(f"\npixels of another class, patches against dense: {apart} of {pixels:,}")
assert apart == 0
print("intersection over union of the nuclei in this picture")
print(f"{'Otsu':12} {iou(otsu.segment(sample.image)):.3f}")
for way in ways:
    print(f"{way.name:12} {iou(labels(way)):.3f}")

figure = Figure(figsize=(11, 2.75), layout="constrained")
panels = [(visible(sample.image)[0], "the photo"), (nuclei.PALETTE[sample.label], "truth")]
for way in ways:
    panels.append((nuclei.PALETTE[labels(way)], f"{way.name}: {way.seconds * 1e3:,.0f} ms"))
for axis, (image, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
    axis.imshow(image, interpolation="nearest")
    axis.set_title(title, fontsize=10)
    axis.set_xticks([])
    axis.set_yticks([])
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/patches_against_fcn.png", dpi=110)
print("drawn in runs/patches_against_fcn.png")

# -- 4. growing pictures, growing windows ----------------------------------------------------------
# Cost does not depend on the weights: these nets have random ones.

print(
    f"\npatches ÷ dense\n{'picture':>9} {'window':>7} {'time':>9} {'multiplications':>16} "
    f"{'fed':>9} {'stored':>9} {'repeated':>9}"
)
deeper = {9: ((16,), (32,)), 15: ((16, 16), (32,)), 35: ((16, 16), (32, 32), (32,))}
for size, side in ((32, 15), (64, 15), (128, 15), (64, 9), (64, 35)):
    net = small_classifier(2, side, stages=deeper[side], generator=generator)
    grown = patches_against_fcn(net, picture[:size, :size])
    factors = " ".join(
        f"{grown.factors[name]:{width}.1f} ×"
        for name, width in (("seconds", 7), ("multiplications", 14), ("fed", 7), ("stored", 7))
    )
    print(f"{size:5}×{size:<3} {side:4}×{side:<2} {factors} {grown.repeated:9.1%}")
print("""
time             of one run each, the dense net's the median of three
multiplications  of convolutions and fully connected layers, counted call by call
fed              bytes of all windows, or of the mirrored picture
stored           bytes that all layers put out""")
