// Convolution and transposed convolution as a matrix product whose left matrix is never made.
//
//     y[n, p, q, k] = b[k] + Σ_{r, s, c} x[n, p·stride + r·dilation − padding, …, c] · w[k, c, r, s]
//
// One row of results is an output pixel (n, p, q), one column an output channel k, and the sum runs
// over e = (r, s, c): so y is (N·P·Q, R·S·C) times (R·S·C, K). The left matrix is im2col's, R·S
// times the picture; here each block reads its tile of it straight from the picture, 8 values of e
// at a time ("implicit GEMM", Chetlur et al. 2014). A tile of 128 pixels × 64 channels reads
// (128 + 64) · R·S·C elements and does 2 · 128 · 64 · R·S·C operations on them.
//
// The transposed convolution runs in stride² phases, each a convolution of stride 1 with a few of
// the taps (see taps.py): nothing is scattered, no zero between pixels is multiplied.
//
// x (N, H, W, C) and y (N, P, Q, K) contiguous; weight (R, S, C/groups, K) for conv2d and
// (R, S, K/groups, C) for conv_transpose2d, which is how the layers keep them. Where the channels of
// a group are a multiple of 4 (float64: 2) they are read 16 bytes at a time. H·W, P·Q < 2³¹ − 128.
#include "register_tile.cuh"

struct Size {
    int n, h, w, c, k, p, q;  // c and k: channels of a group, read and written
    int groups;
};

// Along one axis: result i, the ``at`` + ``apart``·i-th of y, reads pixel ``stride``·i + ``first`` +
// ``step``·t through each of some taps t, whose kernel elements are ``element`` + ``element_step``·t.
struct Axis {
    int results, at, apart, stride;
    int taps, first, step, element, element_step;
};

// a[e, m]: what result m of some reads at e = (tap row, tap column, channel). A thread holds VECTOR
// neighbouring e of some results, and stores them transposed; where 16 bytes cannot be read at once,
// it takes one e of more results, straight to the tile.
struct Pixels {
    const Size& size;
    const Axis &rows, &columns;
    const real* picture;  // this group's channels of it
    Counter first, e;     // this thread's first result; its next e
    bool vectors;
    int k, m;             // where this thread is in the tile
    Vector held[A_LOADS];

    static constexpr int ACROSS = DEPTH / VECTOR, STEP = THREADS / ACROSS;

    __device__ __forceinline__ Pixels(
        const real* picture, long long result, const Size& size, const Axis& rows,
        const Axis& columns)
        : size(size), rows(rows), columns(columns), picture(picture), e{0, 0, 0} {
        vectors = size.c % VECTOR == 0 && is_aligned(picture);
        k = vectors ? threadIdx.x % ACROSS * VECTOR : threadIdx.x % DEPTH;
        m = threadIdx.x / (vectors ? ACROSS : DEPTH);
        first = counter(result, rows.results, columns.results);
        first.advance(m, rows.results, columns.results);
        e.advance(k, columns.taps, size.c);
    }

    // Where a result reads at e; null outside the picture.
    __device__ __forceinline__ const real* at(const Counter& result) const {
        int y = result.middle * rows.stride + rows.first + e.high * rows.step;
        int x = result.low * columns.stride + columns.first + e.middle * columns.step;
        bool inside = y >= 0 && y < size.h && x >= 0 && x < size.w;
        if (e.high >= rows.taps || result.high >= size.n || !inside) return nullptr;
        long long pixel = ((long long)result.high * size.h + y) * size.w + x;
        return picture + pixel * (size.groups * size.c) + e.low;
    }

    __device__ __forceinline__ void load() {
        if (!vectors) return;
        Counter result = first;
#pragma unroll
        for (int i = 0; i < A_LOADS; ++i) {
            const real* p = at(result);
            held[i] = p ? load_vector(p) : Vector{};
            result.advance(STEP, rows.results, columns.results);
        }
        e.advance(DEPTH, columns.taps, size.c);
    }

    __device__ __forceinline__ void store(real (&a)[DEPTH][A_ROW]) {
        if (vectors) {
#pragma unroll
            for (int i = 0; i < A_LOADS; ++i)
#pragma unroll
                for (int v = 0; v < VECTOR; ++v) a[k + v][m + i * STEP] = held[i].at[v];
            return;
        }
        Counter result = first;
#pragma unroll 1
        for (int i = 0; i < TALL; i += THREADS / DEPTH) {
            const real* p = at(result);
            a[k][m + i] = p ? *p : real(0);
            result.advance(THREADS / DEPTH, rows.results, columns.results);
        }
        e.advance(DEPTH, columns.taps, size.c);
    }
};

// b[e, n] for the transposed convolution, whose weights (R, S, K/groups, C) have e's channel last:
// read and stored like `Pixels`.
struct Filters {
    const Size& size;
    const Axis &rows, &columns;
    const real* weight;       // this group's channels, this thread's first column
    int width, kernel_width;  // columns from that one on
    Counter e;
    bool vectors;
    int k, n;
    Vector held[B_LOADS];

    static constexpr int ACROSS = DEPTH / VECTOR, STEP = THREADS / ACROSS;

    __device__ __forceinline__ Filters(
        const real* all, int group, int column, int kernel_width, const Size& size,
        const Axis& rows, const Axis& columns)
        : size(size), rows(rows), columns(columns), kernel_width(kernel_width), e{0, 0, 0} {
        vectors = size.c % VECTOR == 0 && is_aligned(all);
        k = vectors ? threadIdx.x % ACROSS * VECTOR : threadIdx.x % DEPTH;
        n = threadIdx.x / (vectors ? ACROSS : DEPTH);
        weight = all + (long long)(column + n) * (size.groups * size.c) + group * size.c;
        width = size.k - column - n;
        e.advance(k, columns.taps, size.c);
    }

    // The weight of column i from this thread's first on at e; null beyond the last.
    __device__ __forceinline__ const real* at(int i) const {
        if (e.high >= rows.taps || i >= width) return nullptr;
        int element = (rows.element + e.high * rows.element_step) * kernel_width +
                      columns.element + e.middle * columns.element_step;
        long long filter = (long long)element * size.k + i;
        return weight + filter * (size.groups * size.c) + e.low;
    }

    __device__ __forceinline__ void load() {
        if (!vectors) return;
#pragma unroll
        for (int i = 0; i < B_LOADS; ++i) {
            const real* p = at(i * STEP);
            held[i] = p ? load_vector(p) : Vector{};
        }
        e.advance(DEPTH, columns.taps, size.c);
    }

    __device__ __forceinline__ void store(real (&b)[DEPTH][B_ROW]) {
        if (vectors) {
#pragma unroll
            for (int i = 0; i < B_LOADS; ++i)
#pragma unroll
                for (int v = 0; v < VECTOR; ++v) b[k + v][n + i * STEP] = held[i].at[v];
            return;
        }
#pragma unroll 1
        for (int i = 0; i < WIDE; i += THREADS / DEPTH) {
            const real* p = at(i);
            b[k][n + i] = p ? *p : real(0);
        }
        e.advance(DEPTH, columns.taps, size.c);
    }
};

// y = max(floor, bias + c) at this thread's results; NaN stays NaN.
__device__ __forceinline__ void finish(
    const Own& c, const real* bias, real* y, long long result, int group, int column,
    real floor, const Size& size, const Axis& rows, const Axis& columns) {
    int all = size.groups * size.k;
    bool vectors = size.k % VECTOR == 0 && is_aligned(y);
    Vector start[OWN_COLUMNS / VECTOR];
#pragma unroll
    for (int j = 0; j < OWN_COLUMNS; ++j) {
        int k = column + own_column(j);
        start[j / VECTOR].at[j % VECTOR] = bias && k < size.k ? bias[group * size.k + k] : real(0);
    }
    Counter m = counter(result, rows.results, columns.results);
    m.advance(own_row(0), rows.results, columns.results);
#pragma unroll
    for (int i = 0; i < OWN_ROWS; ++i) {
        if (m.high >= size.n) return;
        int p = rows.at + m.middle * rows.apart, q = columns.at + m.low * columns.apart;
        real* to = y + (((long long)m.high * size.p + p) * size.q + q) * all + group * size.k;
#pragma unroll
        for (int j = 0; j < OWN_COLUMNS; j += VECTOR) {
            int k = column + own_column(j);
            Vector value = start[j / VECTOR];
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) {
                value.at[v] += c[i][j + v];
                if (value.at[v] < floor) value.at[v] = floor;
            }
            if (vectors) {
                if (k < size.k) store_vector(to + k, value);
            } else {
#pragma unroll
                for (int v = 0; v < VECTOR; ++v)
                    if (k + v < size.k) to[k + v] = value.at[v];
            }
        }
        if (i + 1 < OWN_ROWS) m.advance(own_row(i + 1) - own_row(i), rows.results, columns.results);
    }
}

// -- the kernels -----------------------------------------------------------------------------------

// Tile after tile: groups, then 128 results of each, then 64 channels of those.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv2d(
    const real* __restrict__ x, const real* __restrict__ weight, const real* __restrict__ bias,
    real* __restrict__ y, int n, int h, int w, int c, int k, int r, int s, int p, int q,
    int stride_y, int stride_x, int padding_y, int padding_x, int dilation_y, int dilation_x,
    int groups, real floor) {
    __shared__ Tiles tiles;
    Size size{n, h, w, c, k, p, q, groups};
    Axis rows{p, 0, 1, stride_y, r, -padding_y, dilation_y, 0, 1};
    Axis columns{q, 0, 1, stride_x, s, -padding_x, dilation_x, 0, 1};
    int depth = r * s * c, across = (k + WIDE - 1) / WIDE;
    long long down = ((long long)n * p * q + TALL - 1) / TALL;
    for (long long tile = blockIdx.x; tile < groups * down * across; tile += gridDim.x) {
        int column = int(tile % across) * WIDE, group = int(tile / across / down);
        long long result = tile / across % down * TALL;
        Own sums = {};
        Pixels left(x + group * c, result, size, rows, columns);
        Rows right(weight + group * k + column, (long long)groups * k, depth, k - column);
        accumulate(tiles, left, right, (depth + DEPTH - 1) / DEPTH, sums);
        finish(sums, bias, y, result, group, column, floor, size, rows, columns);
    }
}

// Of the taps of a transposed convolution along one axis, those that phase ``at`` uses: r with
// (at + padding − r·dilation) divisible by the stride, and each reads that quotient further on.
__device__ void set_phase(
    Axis& axis, int at, int out, int kernel, int stride, int padding, int dilation) {
    int first = 0, period = 1;
    while (first < kernel && (at + padding - first * dilation) % stride) ++first;
    while (period * dilation % stride) ++period;
    axis.results = (out - at + stride - 1) / stride;
    axis.at = at;
    axis.apart = stride;
    axis.stride = 1;
    axis.taps = (kernel - first + period - 1) / period;
    axis.first = (at + padding - first * dilation) / stride;
    axis.step = -(period * dilation / stride);
    axis.element = first;
    axis.element_step = period;
}

// As conv2d, phase after phase within a group; p and q are what a forward convolution calls h and w.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv_transpose2d(
    const real* __restrict__ x, const real* __restrict__ weight, const real* __restrict__ bias,
    real* __restrict__ y, int n, int h, int w, int c, int k, int r, int s, int p, int q,
    int stride_y, int stride_x, int padding_y, int padding_x, int dilation_y, int dilation_x,
    int groups, real floor) {
    __shared__ Tiles tiles;
    __shared__ Axis rows, columns;
    Size size{n, h, w, c, k, p, q, groups};
    int across = (k + WIDE - 1) / WIDE, phases_x = min(stride_x, q);
    int phases = min(stride_y, p) * phases_x;
    long long most = (long long)n * ((p + stride_y - 1) / stride_y);  // rows of the largest phase
    long long down = (most * ((q + stride_x - 1) / stride_x) + TALL - 1) / TALL;
    for (long long tile = blockIdx.x; tile < groups * phases * down * across; tile += gridDim.x) {
        int column = int(tile % across) * WIDE, at = int(tile / across / down % phases);
        int group = int(tile / across / down / phases);
        long long result = tile / across % down * TALL;
        __syncthreads();  // all are done with the phase before
        if (threadIdx.x == 0) {
            set_phase(rows, at / phases_x, p, r, stride_y, padding_y, dilation_y);
            set_phase(columns, at % phases_x, q, s, stride_x, padding_x, dilation_x);
            if (columns.taps == 0) rows.taps = 0, columns.taps = 1;  // one that is never reached
        }
        __syncthreads();
        if (result >= (long long)n * rows.results * columns.results) continue;
        int depth = rows.taps * columns.taps * c;
        Own sums = {};
        Pixels left(x + group * c, result, size, rows, columns);
        Filters right(weight, group, column, s, size, rows, columns);
        accumulate(tiles, left, right, (depth + DEPTH - 1) / DEPTH, sums);
        finish(sums, bias, y, result, group, column, floor, size, rows, columns);
    }
}
