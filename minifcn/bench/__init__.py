"""The benchmark behind `minifcn bench`: the engine beside the textbook's way and PyTorch.

How it measures, from the inside out:

=============== ================================================================================
`cases`         what is measured, as data, each with the bar that it is to stay under
`contender_*`   the same cases in minifcn, in textbook NumPy, in PyTorch
`worker`        a process that holds one contender and times the case that it is told
`process`       starts a worker, and asks it
`duel`          the contenders of one case in turns, round after round; medians
`suites`        layers, steps, prediction, memory, start-up, threads
`peak`          the multiply-add rate that the processor reaches at all
`row`, `chart`  one line of the result, and the picture of all
=============== ================================================================================

Each contender has a process of its own, because thread pools and allocators of two engines in one
process slow each other. They take turns, because a shared machine has good and bad seconds, and
both shall have their part of each. Only one works at a time.
"""
