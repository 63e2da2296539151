"""How a Tensor behaves among Python's and NumPy's own things, and what it refuses."""

import numpy as np
import pytest

import minifcn as mf

F = mf.functional


def test_it_iterates_formats_and_converts():
    x = mf.Tensor(np.arange(6.0).reshape(2, 3))
    assert [row.numpy().tolist() for row in x] == [[0, 1, 2], [3, 4, 5]]
    assert np.asarray(x).tolist() == x.data.tolist()
    assert f"{x.sum():.2f}" == "15.00"
    assert (np.eye(2) @ x).numpy().tolist() == x.data.tolist()


def test_shapes_come_as_numbers_or_as_a_tuple():
    assert mf.zeros(2, 3).shape == mf.zeros((2, 3)).shape == mf.ones((2, 3)).shape == (2, 3)
    assert mf.ones(1, 3).expand(4, -1).shape == (4, 3)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32, np.float64])
def test_clone_keeps_the_dtype(dtype):
    assert mf.Tensor(np.ones(3, dtype)).clone().dtype == dtype


def test_a_recorded_value_cannot_be_written_in_place():
    x, z = mf.Tensor([1.0, 2.0], requires_grad=True), mf.zeros(2, dtype=np.float64)
    for write in (
        lambda: z.__setitem__(0, x[0] * 3),
        lambda: z.copy_(x),
        lambda: z.add_(x),
        lambda: z.mul_(x),
    ):
        with pytest.raises(mf.GraphError, match="writing in place would lose"):
            write()
    with mf.no_grad():
        z.copy_(x)
    assert z.numpy().tolist() == [1, 2]


def test_a_change_of_a_result_that_backward_reads_is_noticed():
    x, w = (mf.Tensor(np.ones((1, 1, 1, 1)), requires_grad=True) for _ in range(2))
    y = F.conv2d_relu(x, w)
    with mf.no_grad():
        y.add_(5)
    with pytest.raises(mf.GraphError, match="its result.*changed in place"):
        y.sum().backward()


def test_relus_result_may_be_changed():
    """Its backward reads a bit an element, which does not change with it."""
    x = mf.Tensor([-1.0, 2.0], requires_grad=True)
    y = F.relu(x)
    with mf.no_grad():
        y.add_(5)
    y.sum().backward()
    assert x.grad.numpy().tolist() == [0, 1]


def test_an_index_may_change_after_it_was_used():
    x, where = mf.Tensor([1.0, 2.0, 3.0], requires_grad=True), np.array([0])
    y = x[where].sum()
    where[0] = 2
    y.backward()
    assert x.grad.numpy().tolist() == [1, 0, 0]


def test_whole_numbers_leave_the_graph():
    x = mf.Tensor([1.5, 2.5], requires_grad=True)
    assert not x.to(np.int64).requires_grad


def test_a_factor_that_is_not_read_may_change():
    w, x = mf.Tensor([2.0], requires_grad=True), mf.Tensor([3.0])
    y = w * x
    with mf.no_grad():
        w.fill_(7.0)  # only x is needed for dy/dw
    y.backward()
    assert w.grad.item() == 3.0


def test_a_mean_of_a_million_pixels_in_float32():
    """NumPy adds channels-last pixels one by one; in float32 that was 1 % off."""
    pixels = np.full((1, 1000, 1000, 2), 0.1, np.float32).transpose(0, 3, 1, 2)
    mean = mf.Tensor(pixels).mean((2, 3)).numpy()
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, 0.1, rtol=1e-6)


def test_the_variance_survives_a_large_mean_in_float32():
    x = np.full((1, 1, 50, 50), 10_000, np.float32)
    x[..., ::2] = np.nextafter(np.float32(10_000), np.float32(20_000))
    running = np.zeros(1), np.zeros(1)
    F.batch_norm(mf.Tensor(x), *running, training=True, momentum=1.0)
    np.testing.assert_allclose(running[1], x.astype(np.float64).var(ddof=1), rtol=1e-6)


def test_void_pixels_are_silent_in_second_derivatives_too():
    z = mf.Tensor(np.full((1, 2, 2), np.nan), requires_grad=True)
    with mf.no_grad():
        z[:, :, 1] = 0.5
    loss = F.cross_entropy(z, np.array([[255, 1]]), ignore_index=255)
    (gradient,) = mf.grad(loss, z, create_graph=True)
    assert gradient.numpy()[0, :, 0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.cross_entropy(mf.Tensor([[1, 5, 2]]), np.array([0])), "wanted floating logits"),
        (lambda: F.conv2d(mf.zeros(1, 1, 4, 4), mf.ones(1, 1, 2, 2), stride=1.5), "stride is 1.5"),
        (lambda: F.relu(F.max_pool2d(mf.zeros(1, 1, 4, 4), None)), "kernel_size is None"),
        (
            lambda: F.conv2d(mf.zeros(1, 1, 4, 4, dtype=np.float16), mf.ones(1, 1, 2, 2)),
            "wanted float32 or float64",
        ),
        (
            lambda: mf.check.gradgradcheck(
                lambda x: x.detach() * 2, [mf.Tensor(np.ones(2), requires_grad=True)]
            ),
            "depends on an input",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises((mf.ShapeError, mf.InputError), match=message):
        call()
