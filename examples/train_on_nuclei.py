"""Lesson 2. A fully convolutional network learns to find cell nuclei: the whole loop, in the open.

    python examples/train_on_nuclei.py              about a minute on two cores
    python examples/train_on_nuclei.py --steps 300  better

`minifcn train` does the same with a validation split, checkpoints and a progress bar. Here is only
what cannot be left out. It writes runs/lesson.png: picture, truth, prediction, errors, confidence.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import minifcn as mf
from minifcn.data import Loader, normalise, nuclei
from minifcn.data.otsu import segment
from minifcn.data.transforms import Compose, RandomCrop, RandomFlip, RandomRotate90
from minifcn.metrics import ConfusionMatrix
from minifcn.study.panel import Example, draw_panel

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
generator = np.random.default_rng(args.seed)

# 68 pictures with a label for each pixel: background or nucleus. Crops of 128 × 128, turned and
# mirrored at random: a microscope has no up.
train, test = nuclei.load("train"), nuclei.load("test")
augment = Compose(RandomFlip(0.5, 0.5), RandomRotate90(), RandomCrop(128))
batches = Loader(train, batch_size=8, seed=args.seed, transform=augment).batches()

# Five stages of two 3 × 3 convolutions and a pooling, down to stride 32; then up again, adding the
# score of each finer stage. Nuclei are small: the skips go down to pool1, stride 2 (FCN-2s).
net = mf.models.fcn2s(
    len(train.classes), widths=(12, 24, 48, 64, 64), fc_channels=128, generator=generator
)
optimizer = mf.optim.Adam(net.parameters(), lr=3e-3)
schedule = mf.optim.PolyLR(optimizer, total_steps=args.steps)

start = time.perf_counter()
for step, batch in zip(range(1, args.steps + 1), batches, strict=False):
    scores = net(mf.Tensor(batch.images))  # (N, 2, 128, 128): every pixel is a sample
    loss = mf.functional.cross_entropy(scores, batch.labels, ignore_index=train.void)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if step == 1:
        print(f"the first step took {time.perf_counter() - start:.0f} s, compilation included")
    if step % 20 == 0:
        print(f"step {step:4}   loss {loss.item():.3f}   {time.perf_counter() - start:4.0f} s")

# Whole pictures of any size go through the same net: nothing in it depends on the size.
net.eval()
matrix, otsu, rows = ConfusionMatrix(2), ConfusionMatrix(2), []
with mf.no_grad():
    for i in range(len(test)):
        sample = test[i]
        pixels = normalise(sample.image)[None]  # (1, H, W, 3)
        probability = mf.functional.softmax(net(mf.Tensor(pixels.transpose(0, 3, 1, 2))), 1)
        found = probability.numpy()[0].argmax(axis=0)
        matrix.update(sample.label, found)
        otsu.update(sample.label, segment(sample.image))
        if i % 10 == 0:
            confidence = probability.numpy()[0].max(axis=0)
            rows.append(Example(sample.name, "", sample.image, sample.label, found, confidence))

print(f"\nintersection over union of the nuclei, {len(test)} test pictures")
print(f"Otsu's threshold  {otsu.iou()[1]:.3f}\nthis net          {matrix.iou()[1]:.3f}")
Path("runs").mkdir(exist_ok=True)
draw_panel(rows, train.palette, train.classes).savefig("runs/lesson.png", dpi=110)
print("drawn in runs/lesson.png")
