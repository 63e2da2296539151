// The weight gradient of any convolution, from the pictures as they lie.
//
//     dw[r, s, c, k] = Σ_{n, p, q} x[n, p·stride + r·dilation − padding, …, c] · dy[n, p, q, k]
//
// As a matrix product: (R·S·C, N·P·Q), which is im2col's matrix transposed and never made, times
// (N·P·Q, K). The sum runs over all pixels and the result is small; so the pixels are cut into
// ``parts``, blocks of their own sum each into sums[part], and a second kernel adds these in the
// order of the parts. The number of parts comes from the shapes alone: same bits on every GPU.
//
// Neighbours in memory are neighbours in the tiles here, so nothing is stored transposed.
#include "register_tile.cuh"

// a[pixel, m] for m = (tap row, tap column, channel): a thread holds VECTOR neighbouring m of some
// pixels; where 16 bytes cannot be read at once, one m of more pixels, straight to the tile.
struct Taps {
    const real* picture;  // this group's channels of the first image
    int h, w, channels, c, r, s, p, q;
    int stride_y, stride_x, first_y, first_x, dilation_y, dilation_x;
    bool vectors;
    int row, column;  // where this thread is in the tile
    long long left;   // pixels from this thread's next on
    Counter pixel;    // that one: image, row and column of dy
    Counter m;        // this thread's first
    Vector held[A_LOADS];

    static constexpr int ACROSS = TALL / VECTOR, STEP = THREADS / ACROSS;

    __device__ __forceinline__ void start(long long begin, long long count, int first_m) {
        row = threadIdx.x / (vectors ? ACROSS : TALL);
        column = vectors ? threadIdx.x % ACROSS * VECTOR : threadIdx.x % TALL;
        left = count - row;
        pixel = counter(begin, p, q);
        pixel.advance(row, p, q);
        m = counter(first_m + column, s, c);
    }

    // Where dy's pixel reads through this thread's tap and channel; null outside the picture.
    __device__ __forceinline__ const real* at(const Counter& pixel) const {
        int y = pixel.middle * stride_y + first_y + m.high * dilation_y;
        int x = pixel.low * stride_x + first_x + m.middle * dilation_x;
        if (m.high >= r || y < 0 || y >= h || x < 0 || x >= w) return nullptr;
        return picture + (((long long)pixel.high * h + y) * w + x) * channels + m.low;
    }

    __device__ __forceinline__ void load() {
        if (!vectors) return;
#pragma unroll
        for (int i = 0; i < A_LOADS; ++i) {
            const real* from = i * STEP < left ? at(pixel) : nullptr;
            held[i] = from ? load_vector(from) : Vector{};
            pixel.advance(STEP, p, q);
        }
        left -= DEPTH;
    }

    __device__ __forceinline__ void store(real (&a)[DEPTH][A_ROW]) {
        if (vectors) {
#pragma unroll
            for (int i = 0; i < A_LOADS; ++i) store_vector(&a[row + i * STEP][column], held[i]);
            return;
        }
#pragma unroll 1
        for (int i = 0; i < DEPTH; i += THREADS / TALL) {
            const real* from = i < left ? at(pixel) : nullptr;
            a[row + i][column] = from ? *from : real(0);
            pixel.advance(THREADS / TALL, p, q);
        }
        left -= DEPTH;
    }
};

// Tile after tile: parts, then groups, then rows (taps and channels), then 64 output channels.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) conv2d_weight(
    const real* __restrict__ x, const real* __restrict__ dy, real* __restrict__ sums, int n, int h,
    int w, int c, int k, int r, int s, int p, int q, int stride_y, int stride_x, int padding_y,
    int padding_x, int dilation_y, int dilation_x, int groups, int parts) {
    __shared__ Tiles tiles;
    int depth = r * s * c, down = (depth + TALL - 1) / TALL, across = (k + WIDE - 1) / WIDE;
    long long pixels = (long long)n * p * q;
    long long share = (pixels + parts - 1) / parts;  // whole steps, so that none is half empty
    share = (share + DEPTH - 1) / DEPTH * DEPTH;
    for (long long tile = blockIdx.x; tile < (long long)parts * groups * down * across;
         tile += gridDim.x) {
        int column = int(tile % across) * WIDE, row = int(tile / across % down) * TALL;
        int group = int(tile / across / down % groups), part = int(tile / across / down / groups);
        long long begin = part * share, count = min(share, pixels - begin);
        if (count < 0) count = 0;
        Taps left{x + group * c, h, w, groups * c, c, r, s, p, q, stride_y, stride_x,
                  -padding_y, -padding_x, dilation_y, dilation_x,
                  c % VECTOR == 0 && is_aligned(x)};
        left.start(begin, count, row);
        Rows right(dy + begin * groups * k + group * k + column, (long long)groups * k, count,
                   k - column);
        Own products = {};
        accumulate(tiles, left, right, int((count + DEPTH - 1) / DEPTH), products);

        bool vectors = k % VECTOR == 0 && is_aligned(sums);
#pragma unroll
        for (int i = 0; i < OWN_ROWS; ++i) {
            int m = row + own_row(i);
            if (m >= depth) break;
            real* to = sums + (((long long)part * depth + m) * groups + group) * k;
#pragma unroll
            for (int j = 0; j < OWN_COLUMNS; j += VECTOR) {
                int at = column + own_column(j);
                Vector value;
#pragma unroll
                for (int v = 0; v < VECTOR; ++v) value.at[v] = products[i][j + v];
                if (vectors) {
                    if (at < k) store_vector(to + at, value);
                } else {
#pragma unroll
                    for (int v = 0; v < VECTOR; ++v)
                        if (at + v < k) to[at + v] = value.at[v];
                }
            }
        }
    }
}

// dw = Σ_part sums[part], each (size,), part after part.
extern "C" __global__ void add_parts(
    const real* __restrict__ sums, real* __restrict__ dw, long long size, int parts) {
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size;
         i += (long long)gridDim.x * blockDim.x) {
        real sum = sums[i];
        for (int part = 1; part < parts; ++part) sum += sums[part * size + i];
        dw[i] = sum;
    }
}
