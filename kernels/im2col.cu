// The column matrix of a convolution, whole in memory, and its adjoint: the study version, to set
// beside conv2d.cu, which makes the same products and never writes this matrix.
//
//     columns[(n, p, q), (r, s, c)] = x[n, p·stride + r·dilation − padding, …, c]     (0 outside)
//
// A convolution is columns · w. Its matrix is R·S times the picture: 1.05 GiB for VGG's conv1_2 at
// 500×500. x (N, H, W, C) and columns (N·P·Q, R·S·C) are contiguous; one thread an element,
// neighbours along c.
extern "C" __global__ void im2col(
    const real* __restrict__ x, real* __restrict__ columns, int n, int h, int w, int c, int r, int s,
    int p, int q, int stride_y, int stride_x, int padding_y, int padding_x, int dilation_y,
    int dilation_x) {
    long long size = (long long)n * p * q * r * s * c;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size;
         i += (long long)gridDim.x * blockDim.x) {
        int channel = int(i % c), tap = int(i / c % (r * s));
        long long pixel = i / c / (r * s);
        int row = int(pixel / q % p) * stride_y + tap / s * dilation_y - padding_y;
        int column = int(pixel % q) * stride_x + tap % s * dilation_x - padding_x;
        bool inside = row >= 0 && row < h && column >= 0 && column < w;
        long long from = ((pixel / q / p * h + row) * w + column) * c + channel;
        columns[i] = inside ? x[from] : real(0);
    }
}

// y[n, i, j, k] = b[k] + Σ columns[(n, p, q), (r, s, k)] over the taps and pixels with
// i = p·stride + r·dilation − padding, and so for j. Each result gathers what it gets, in the order
// of the taps: if each column scattered instead, they would have to take turns (atomics), and the
// order of a sum would change from run to run. y is (N, H, W, K), columns (N·P·Q, R·S·K).
extern "C" __global__ void col2im(
    const real* __restrict__ columns, const real* __restrict__ bias, real* __restrict__ y, int n,
    int h, int w, int k, int r, int s, int p, int q, int stride_y, int stride_x, int padding_y,
    int padding_x, int dilation_y, int dilation_x) {
    long long size = (long long)n * h * w * k;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size;
         i += (long long)gridDim.x * blockDim.x) {
        int channel = int(i % k), column = int(i / k % w), row = int(i / k / w % h);
        long long image = i / k / w / h;
        real sum = bias ? bias[channel] : real(0);
        for (int a = 0; a < r; ++a) {
            int y_steps = row + padding_y - a * dilation_y;
            if (y_steps < 0 || y_steps % stride_y || y_steps / stride_y >= p) continue;
            for (int b = 0; b < s; ++b) {
                int x_steps = column + padding_x - b * dilation_x;
                if (x_steps < 0 || x_steps % stride_x || x_steps / stride_x >= q) continue;
                long long pixel = (image * p + y_steps / stride_y) * q + x_steps / stride_x;
                sum += columns[((pixel * r + a) * s + b) * k + channel];
            }
        }
        y[i] = sum;
    }
}

// y = max(floor, y + b) in place, for y (M, K) as the matrix product leaves it; NaN stays NaN.
extern "C" __global__ void add_bias(
    real* __restrict__ y, const real* __restrict__ bias, long long size, int k, real floor) {
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size;
         i += (long long)gridDim.x * blockDim.x) {
        real value = bias ? y[i] + bias[i % k] : y[i];
        y[i] = value < floor ? floor : value;
    }
}
