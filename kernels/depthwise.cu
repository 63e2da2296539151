// Depthwise convolution and its transpose, the CUDA reading of depthwise.py; bilinear up-sampling is
// the transposed form.
//
//     y[n, p, q, c] = b[c] + Σ_{r, s} x[n, a, b, c] · w[r, s, c]
//
// In both forms a result reads pixel ``start`` through tap ``tap``, and for every ``step`` taps on
// another pixel ``stride`` further (`Axis`). In the transposed form with stride s only every s-th tap
// meets a pixel, and which ones depends on the *phase* p mod s alone. A block takes rows of a few
// phases, so it needs those taps only: its pixels and its taps go through shared memory, and each is
// read once a tile.
#include "staging.cuh"

struct Axis {
    int size, out, kernel, stride, padding, dilation;
    bool transposed;

    // How many phases there are, and taps from one that meets a pixel to the next.
    __device__ int phases() const { return transposed ? stride : 1; }
    __device__ int step() const {
        int taps = 1;
        while (transposed && taps * dilation % stride != 0) taps++;
        return taps;
    }
    // The first tap that result p meets a pixel with; ``kernel`` if there is none.
    __device__ int tap(int p) const {
        if (!transposed) return 0;
        if (dilation == 1) return (p + padding) % stride;
        int r = 0;
        while (r < kernel && (p + padding - r * dilation) % stride != 0) r++;
        return r;
    }
    // That pixel, and the way from it to the next tap's. They may lie outside the picture.
    __device__ int start(int p, int tap) const {
        return transposed ? (p + padding - tap * dilation) / stride : p * stride - padding;
    }
    __device__ int move(int step) const {
        return transposed ? -(step * dilation / stride) : dilation;
    }
    // The first pixel that results first … last meet, and the one after the last.
    __device__ int low(int first) const {
        const int reach = first + padding - (kernel - 1) * dilation;
        const int pixel = !transposed ? first * stride - padding
                          : reach > 0 ? (reach + stride - 1) / stride : 0;
        return pixel > 0 ? pixel : 0;
    }
    __device__ int high(int last) const {
        const int pixel = transposed ? (last + padding) / stride
                                     : last * stride - padding + (kernel - 1) * dilation;
        return pixel + 1 < size ? pixel + 1 : size;
    }
};

#define AXES                                                                                       \
    const Axis vertical{h, out_h, kernel_h, stride_h, padding_h, dilation_h, transposed};          \
    const Axis horizontal{w, out_w, kernel_w, stride_w, padding_w, dilation_w, transposed}

// Σ over the taps of result (p, q), in rising order, from value ``sum`` on. Tap (r, s) has its weight
// at by_row + k·row + s·pixel, where k counts the taps r that p meets.
__device__ __forceinline__ real taps(const Picture<const real>& x, const real* by_row, int row,
                                     int pixel, const Axis& vertical, const Axis& horizontal,
                                     int down, int across, int p, int q, real sum) {
    const int first = vertical.tap(p), left = horizontal.tap(q);
    int a = vertical.start(p, first);
    for (int r = first; r < vertical.kernel; r += down, a += vertical.move(down), by_row += row) {
        if (a < 0 || a >= vertical.size) continue;
        int b = horizontal.start(q, left);
        for (int s = left; s < horizontal.kernel; s += across, b += horizontal.move(across))
            if (b >= 0 && b < horizontal.size) sum += *x.at(a, b) * by_row[s * pixel];
    }
    return sum;
}

// y (n, out_h, out_w, c) from x (n, h, w, c), weight (kernel_h·kernel_w, c) and bias (c,) or none.
extern "C" __global__ void depthwise(const real* __restrict__ x, const real* __restrict__ weight,
                                     const real* __restrict__ bias, real* __restrict__ y,
                                     long long n, int h, int w, int c, int out_h, int out_w,
                                     int kernel_h, int kernel_w, int stride_h, int stride_w,
                                     int padding_h, int padding_w, int dilation_h, int dilation_w,
                                     bool transposed) {
    AXES;
    const int down = vertical.step(), across = horizontal.step();
    const long long count = n * out_h * out_w * c, image = (long long)h * w * c;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (long long)gridDim.x * blockDim.x) {
        const long long pixel = i / c, line = pixel / out_w;
        const int k = int(i - pixel * c), q = int(pixel - line * out_w), p = int(line % out_h);
        const Picture<const real> channel{x + line / out_h * image + k, (long long)w * c, c};
        const real* by_row = weight + (long long)vertical.tap(p) * kernel_w * c + k;
        y[i] = taps(channel, by_row, down * kernel_w * c, c, vertical, horizontal, down, across, p,
                    q, bias ? bias[k] : 0);
    }
}

// The same through shared memory. A tile: of ``tall`` periods the rows of ``phases`` phases; ``wide``
// columns; ``deep`` channels.
extern "C" __global__ void depthwise_staged(const real* __restrict__ x,
                                            const real* __restrict__ weight,
                                            const real* __restrict__ bias, real* __restrict__ y,
                                            long long n, int h, int w, int c, int out_h, int out_w,
                                            int kernel_h, int kernel_w, int stride_h, int stride_w,
                                            int padding_h, int padding_w, int dilation_h,
                                            int dilation_w, bool transposed, int phases, int tall,
                                            int wide, int deep) {
    extern __shared__ real staged[];
    AXES;
    const int period = vertical.phases(), periods = (out_h + period - 1) / period;
    const int groups = (period + phases - 1) / phases;  // of phases, each a tile of its own
    const int down = vertical.step(), across = horizontal.step();
    const int rows = (kernel_h + down - 1) / down;  // of taps that one phase meets, at most
    const long long tiles = Tile::count(n * groups, periods, out_w, c, tall, wide, deep);

    for (long long t = blockIdx.x; t < tiles; t += gridDim.x) {
        const Tile tile(t, periods, out_w, c, tall, wide, deep);
        const int channels = tile.channels, phase = int(tile.image % groups) * phases;
        const long long image = tile.image / groups;
        const int here = min(phases, period - phase);

        real *biases = staged, *by_phase = biases + channels;
        for (int k = threadIdx.x; k < channels; k += blockDim.x)
            biases[k] = bias ? bias[tile.channel + k] : 0;

        // the taps: for each phase its rows, one below the other
        const int row = kernel_w * channels;
        for (int e = threadIdx.x; e < here * rows * row; e += blockDim.x) {
            const int slot = e / row, s = (e - slot * row) / channels;
            const int k = e - slot * row - s * channels;
            const int r = vertical.tap(phase + slot / rows) + slot % rows * down;
            by_phase[e] = r < kernel_h
                            ? weight[((long long)r * kernel_w + s) * c + tile.channel + k] : 0;
        }
        // the pixels
        const int last = (tile.bottom - 1) * period + phase + here - 1;
        const int top = vertical.low(tile.top * period + phase), left = horizontal.low(tile.left);
        const int bottom = max(vertical.high(min(last, out_h - 1)), top);
        const int right = max(horizontal.high(tile.right - 1), left);
        const auto pixels = stage(by_phase + here * rows * row, x + image * h * w * c, w, c, top,
                                  bottom, left, right, tile.channel, channels);
        __syncthreads();

        auto start = [&](int i) {
            const int p = (tile.top + i / here) * period + phase + i % here;
            return y + ((image * out_h + p) * out_w + tile.left) * c + tile.channel;
        };
        const int line = (tile.right - tile.left) * channels;
        by_sectors((tile.bottom - tile.top) * here, line, start, [&](int i, int e) {
            const int p = (tile.top + i / here) * period + phase + i % here;
            const int j = e / channels, k = e - j * channels, q = tile.left + j;
            if (p >= out_h) return;
            const Picture<const real> channel{pixels.origin + k, pixels.row, pixels.pixel};
            const real* by_row = by_phase + i % here * rows * row + k;
            start(i)[(long long)j * c + k] =
                taps(channel, by_row, row, channels, vertical, horizontal, down, across, p, q,
                     biases[k]);
        });
        __syncthreads();  // the next tile's taps and pixels take the place
    }
}

// A plain convolution of stride > 1 whose windows overlap, as the adjoint of up-sampling is. What a
// tile of results reads is stride² times as large as the tile, so one row of pixels at a time goes
// through shared memory, and adds what it has to add to the tile's sums. Rows a of one
// *phase*, a + padding = f + u·stride, meet the same taps r = f + m·stride (for result row u − m), so
// these are all that is kept beside it. dilation = 1.
//
// Both neighbours of a tile's edge read what they share, and each reads the taps: with 21 channels ×2
// and ×8 move less than 1.1 times the least, ×16 1.12 times where pictures have many tiles, for in 48
// KiB a tile is no larger than 12 × 16.
extern "C" __global__ void depthwise_strided(const real* __restrict__ x,
                                             const real* __restrict__ weight,
                                             const real* __restrict__ bias, real* __restrict__ y,
                                             long long n, int h, int w, int c, int out_h, int out_w,
                                             int kernel_h, int kernel_w, int stride_h, int stride_w,
                                             int padding_h, int padding_w, int tall, int wide,
                                             int deep) {
    extern __shared__ real staged[];
    const int most = (kernel_h + stride_h - 1) / stride_h;  // rows of taps of a phase
    real *by_row = staged, *sums = by_row + most * kernel_w * deep;
    real* pixels = sums + tall * wide * deep;
    const long long tiles = Tile::count(n, out_h, out_w, c, tall, wide, deep);

    for (long long t = blockIdx.x; t < tiles; t += gridDim.x) {
        const Tile tile(t, out_h, out_w, c, tall, wide, deep);
        const int channels = tile.channels, line = (tile.right - tile.left) * channels;
        const int rows = tile.bottom - tile.top, taps = kernel_w * channels;
        const int left = max(tile.left * stride_w - padding_w, 0);
        const int right = max(min((tile.right - 1) * stride_w - padding_w + kernel_w, w), left);
        // column e of the tile is one thread's, in all rows
        for (int e = threadIdx.x; e < line; e += blockDim.x) {
            const real first = bias ? bias[tile.channel + e % channels] : 0;
            for (int i = 0; i < rows; i++) sums[i * line + e] = first;
        }

        for (int f = 0; f < stride_h && f < kernel_h; f++) {
            const int slots = (kernel_h - f + stride_h - 1) / stride_h;
            for (int e = threadIdx.x; e < slots * taps; e += blockDim.x) {
                const int m = e / taps, s = (e - m * taps) / channels;
                const int k = e - m * taps - s * channels;
                by_row[e] = weight[((f + m * stride_h) * kernel_w + s) * c + tile.channel + k];
            }
            for (int u = tile.top; u < tile.bottom + slots - 1; u++) {
                const int a = f + u * stride_h - padding_h;
                if (a < 0 || a >= h) continue;
                const auto row = stage(pixels, x + tile.image * h * w * c, w, c, a, a + 1, left,
                                       right, tile.channel, channels);
                __syncthreads();
                for (int e = threadIdx.x; e < line; e += blockDim.x) {
                    const int k = e % channels;
                    const int first = (tile.left + e / channels) * stride_w - padding_w;
                    for (int m = 0; m < slots; m++) {
                        const int i = u - m - tile.top;
                        if (i < 0 || i >= rows) continue;
                        real sum = 0;
                        for (int s = max(-first, 0); s < kernel_w && first + s < w; s++)
                            sum += row.at(a, first + s)[k] * by_row[m * taps + s * channels + k];
                        sums[i * line + e] += sum;
                    }
                }
                __syncthreads();  // the next row, or the next taps, take the place
            }
        }
        __syncthreads();
        auto start = [&](int i) {
            const long long row = tile.image * out_h + tile.top + i;
            return y + (row * out_w + tile.left) * c + tile.channel;
        };
        by_sectors(rows, line, start, [&](int i, int e) {
            start(i)[(long long)(e / channels) * c + e % channels] = sums[i * line + e];
        });
        __syncthreads();  // the next tile's sums take the place
    }
}
