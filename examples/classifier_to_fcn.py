"""Lesson 4. A classifier of small pictures becomes a net that labels large ones: net surgery.

    python examples/classifier_to_fcn.py             about a minute on two cores
    python examples/classifier_to_fcn.py --steps 900  longer

A classic CNN, five convolutions and three fully connected layers, learns to say whether the middle
of a 45 × 45 crop lies in a cell nucleus. It has never seen anything but crops of that size, and can
take no other. Then its fully connected layers are read as the convolutions that they are, not a
weight changes, and it goes over whole pictures at once. It writes runs/classifier_to_fcn.png.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

import minifcn as mf
from minifcn.data import normalise, nuclei, otsu
from minifcn.metrics import ConfusionMatrix
from minifcn.models import classify_densely, enlarge, to_fully_convolutional, windows_about
from minifcn.study.pictures import visible

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
generator = np.random.default_rng(args.seed)
F = mf.functional

# -- 1. the classifier -----------------------------------------------------------------------------

SIDE, BATCH = 45, 96
train, test = nuclei.load("train"), nuclei.load("test")
samples = [train[i] for i in range(len(train))]
windows = [windows_about(normalise(s.image), SIDE) for s in samples]  # views: no crop is made yet


def crops(count):
    """Crops (N, 45, 45, 3) about pixels drawn from all pictures, and what those pixels are."""
    picked, classes = [], []
    for _ in range(count):
        i = generator.integers(len(samples))
        row, column = generator.integers(samples[i].label.shape)
        turned = np.rot90(windows[i][row, column], generator.integers(4))  # a microscope has no up
        picked.append(turned)
        classes.append(samples[i].label[row, column])
    return np.stack(picked), np.array(classes)


classifier = mf.models.small_classifier(2, SIDE, generator=generator)
optimizer = mf.optim.Adam(classifier.parameters(), lr=1e-3)
schedule = mf.optim.PolyLR(optimizer, total_steps=args.steps)
print(f"a classifier of {SIDE}×{SIDE} crops, {mf.models.parameter_count(classifier):,} weights")
start, right = time.perf_counter(), []
for step in range(1, args.steps + 1):
    images, classes = crops(BATCH)
    scores = classifier(mf.Tensor(images.transpose(0, 3, 1, 2)))  # (N, 2): one answer a crop
    loss = F.cross_entropy(scores, classes)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    right.append((scores.numpy().argmax(axis=1) == classes).mean())
    if step % 50 == 0:
        seconds = time.perf_counter() - start
        share = np.mean(right[-50:])
        print(f"step {step:4}   loss {loss.item():.3f}   right {share:.1%}   {seconds:3.0f} s")

# -- 2. the surgery --------------------------------------------------------------------------------

net, verdict = to_fully_convolutional(classifier, SIDE)
print(f"\nthe same, fully convolutional\n{verdict}")
assert verdict.agrees and verdict.cells_agree
stride = verdict.stride[0]

padded = mf.models.small_classifier(2, SIDE, padding=1, generator=generator)
print(f"\nits shape with padding 1, random weights\n{to_fully_convolutional(padded, SIDE)[1]}")
alexnet = mf.models.alexnet(generator=generator)
print(f"\nAlexNet, random weights\n{to_fully_convolutional(alexnet, 224)[1]}")

# -- 3. whole pictures -----------------------------------------------------------------------------

matrix, threshold, shown = ConfusionMatrix(2), ConfusionMatrix(2), {}
start = time.perf_counter()
for i in range(len(test)):
    sample = test[i]
    size = sample.label.shape
    scores = classify_densely(net, normalise(sample.image), SIDE)
    heat = F.softmax(mf.Tensor(scores), 0).numpy()  # (2, 64, 64): a cell every 4 pixels
    matrix.update(sample.label, enlarge(scores, stride, size).argmax(axis=0))
    threshold.update(sample.label, otsu.segment(sample.image))
    shown.setdefault(nuclei.kinds()[sample.name], (sample, heat))  # the first of each kind
print(f"\n{len(test)} whole test pictures, {time.perf_counter() - start:.1f} s in all")
print("intersection over union of the nuclei")
print(f"Otsu's threshold                            {threshold.iou()[1]:.3f}")
print(f"the classifier, fully convolutional         {matrix.iou()[1]:.3f}")

# -- 4. the picture --------------------------------------------------------------------------------

figure = Figure(figsize=(10, 2.45 * len(shown)), layout="constrained")
grid = figure.subplots(len(shown), 4)
glow = LinearSegmentedColormap.from_list("glow", [(1, 0.5, 0, 0), (1, 0.5, 0, 0.9)])
legend = LinearSegmentedColormap.from_list("on white", [(1, 1, 1), (1, 0.55, 0.1)])
for axes, (sample, heat) in zip(grid, shown.values(), strict=True):
    height, width = sample.label.shape
    rows, columns = (stride * n - stride / 2 for n in heat.shape[1:])
    around = (-stride / 2, columns, rows, -stride / 2)  # cell i lies about pixel 4i
    for axis in axes[:3]:
        axis.imshow(visible(sample.image)[0], interpolation="nearest")  # dark ones brightened
    for axis, share in zip(axes[1:3], heat, strict=True):
        axis.imshow(share, cmap=glow, vmin=0, vmax=1, extent=around, interpolation="nearest")
    axes[3].imshow(nuclei.PALETTE[sample.label], interpolation="nearest")
    for axis in axes:
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
titles = ("the photo", "heat map: background", "heat map: nucleus", "truth")
for axis, title in zip(grid[0], titles, strict=True):
    axis.set_title(title, fontsize=10)
bar = figure.colorbar(ScalarMappable(cmap=legend), ax=grid, fraction=0.02, pad=0.01)
bar.set_label("softmax of the scores, a cell every 4 × 4 pixels", fontsize=9)
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/classifier_to_fcn.png", dpi=110)
print("drawn in runs/classifier_to_fcn.png")
