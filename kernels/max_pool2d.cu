// Max-pooling, its adjoint and the adjoint's adjoint, the CUDA reading of max_pool2d.py: all of them
// gathers, in which each result is one thread's, so there is nothing to add atomically.
//
// Windows that lie apart (2×2, two pixels on, which is what an FCN pools with) need each pixel once,
// and a thread reads it where it lies. Windows that overlap share pixels; there a block first copies
// all pixels that its tile of results needs to shared memory, and so reads them once. The same serves
// where C is no multiple of a vector: in rows of pixels the copy meets whole sectors all the same.
// What the edges of a tile share is read for both: of 3×3 windows two pixels on, tiles of 4 × 32 (the
// largest of 21 channels for which 48 KiB suffice) move 1.12 times the least, those of 24 or 64 1.08.
#include "staging.cuh"

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {  // N channels of one pixel
    T at[N];
};

struct Axis {
    int size, out, kernel, stride, padding, dilation;

    // The pixel under tap r of window i; it may lie outside the picture.
    __device__ int pixel(int i, int r) const { return i * stride + r * dilation - padding; }

    // The first window that sees one of the pixels first … last, and the one after the last.
    __device__ int first_window(int first) const {
        const int reach = first + padding - (kernel - 1) * dilation;
        return reach > 0 ? (reach + stride - 1) / stride : 0;
    }
    __device__ int end_window(int last) const {
        const int end = (last + padding) / stride + 1;
        return end < out ? end : out;
    }
};

struct Windows {
    Axis y, x;
};

// The largest of N channels in window (p, q), and the tap that has it: the first of equals, and NaN
// over every number. Nothing of the picture seen: −∞, and 255.
template <int N, class Index>
__device__ __forceinline__ void take_best(const Picture<const real>& x, const Windows& windows, int p,
                                          int q, real lowest, real* y, Index* index) {
    Pack<real, N> best;
    Pack<Index, N> where;
    bool first = true;
    for (int j = 0; j < N; j++) {
        best.at[j] = lowest;
        where.at[j] = 255;
    }
    for (int r = 0; r < windows.y.kernel; r++) {
        const int a = windows.y.pixel(p, r);
        if (a < 0 || a >= windows.y.size) continue;
        for (int s = 0; s < windows.x.kernel; s++) {
            const int b = windows.x.pixel(q, s);
            if (b < 0 || b >= windows.x.size) continue;
            const auto value = *(const Pack<real, N>*)x.at(a, b);
            for (int j = 0; j < N; j++) {
                const real v = value.at[j], so_far = best.at[j];
                // not (v ≤ so far): larger or NaN; and a NaN already there stays
                if (first || (!(v <= so_far) && so_far == so_far)) {
                    best.at[j] = v;
                    where.at[j] = (Index)(r * windows.x.kernel + s);
                }
            }
            first = false;
        }
    }
    *(Pack<real, N>*)y = best;
    *(Pack<Index, N>*)index = where;
}

// The sum of the gradients of those windows that pixel (a, b) won: the adjoint of the above.
template <class Index>
__device__ __forceinline__ real won(const Picture<const real>& dy, const Picture<const Index>& index,
                                    const Windows& windows, int a, int b) {
    real sum = 0;
    for (int r = 0; r < windows.y.kernel; r++) {
        const int up = a + windows.y.padding - r * windows.y.dilation, i = up / windows.y.stride;
        if (up < 0 || i >= windows.y.out || i * windows.y.stride != up) continue;
        for (int s = 0; s < windows.x.kernel; s++) {
            const int left = b + windows.x.padding - s * windows.x.dilation;
            const int j = left / windows.x.stride;
            if (left < 0 || j >= windows.x.out || j * windows.x.stride != left) continue;
            if (*index.at(i, j) == (Index)(r * windows.x.kernel + s)) sum += *dy.at(i, j);
        }
    }
    return sum;
}

// -- pixels read where they lie --------------------------------------------------------------------

template <int N, class Index>
__device__ __forceinline__ void pool(const real* x, real* y, Index* index, long long n, int c,
                                     const Windows& windows, real lowest) {
    const long long row = (long long)windows.x.size * c, packs = c / N;
    const long long count = n * windows.y.out * windows.x.out * packs;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (long long)gridDim.x * blockDim.x) {
        const long long pixel = i / packs, line = pixel / windows.x.out;
        const int q = int(pixel - line * windows.x.out), p = int(line % windows.y.out);
        const real* image = x + line / windows.y.out * windows.y.size * row;
        const Picture<const real> picture{image + (i - pixel * packs) * N, row, c};
        take_best<N>(picture, windows, p, q, lowest, y + i * N, index + i * N);
    }
}

#define WINDOWS                                                                                     \
    { {h, out_h, kernel_h, stride_h, padding_h, dilation_h},                                        \
      {w, out_w, kernel_w, stride_w, padding_w, dilation_w} }

// (y, index) (n, out_h, out_w, c) from x (n, h, w, c); ``lowest`` is −∞.
extern "C" __global__ void max_pool2d(const real* __restrict__ x, real* __restrict__ y,
                                      unsigned char* __restrict__ index, long long n, int h, int w,
                                      int c, int out_h, int out_w, int kernel_h, int kernel_w,
                                      int stride_h, int stride_w, int padding_h, int padding_w,
                                      int dilation_h, int dilation_w, real lowest) {
    if (c % VECTOR == 0 && is_aligned(x) && is_aligned(y))
        pool<VECTOR>(x, y, index, n, c, WINDOWS, lowest);
    else
        pool<1>(x, y, index, n, c, WINDOWS, lowest);
}

// The same for windows of more taps than a byte can name.
extern "C" __global__ void max_pool2d_int32(const real* __restrict__ x, real* __restrict__ y,
                                            int* __restrict__ index, long long n, int h, int w,
                                            int c, int out_h, int out_w, int kernel_h, int kernel_w,
                                            int stride_h, int stride_w, int padding_h,
                                            int padding_w, int dilation_h, int dilation_w,
                                            real lowest) {
    pool<1>(x, y, index, n, c, WINDOWS, lowest);
}

template <class Index>
__device__ __forceinline__ void unpool(const real* dy, const Index* index, real* dx, long long n,
                                       int c, const Windows& windows) {
    const long long row = (long long)windows.x.out * c, image = windows.y.out * row;
    const long long count = n * windows.y.size * windows.x.size * c;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (long long)gridDim.x * blockDim.x) {
        const long long pixel = i / c, line = pixel / windows.x.size;
        const long long start = line / windows.y.size * image + i - pixel * c;
        const Picture<const real> slopes{dy + start, row, c};
        const Picture<const Index> taps{index + start, row, c};
        dx[i] = won(slopes, taps, windows, int(line % windows.y.size),
                    int(pixel - line * windows.x.size));
    }
}

// dx (n, h, w, c) from dy and index (n, out_h, out_w, c).
extern "C" __global__ void max_unpool2d(const real* __restrict__ dy,
                                        const unsigned char* __restrict__ index,
                                        real* __restrict__ dx, long long n, int h, int w, int c,
                                        int out_h, int out_w, int kernel_h, int kernel_w,
                                        int stride_h, int stride_w, int padding_h, int padding_w,
                                        int dilation_h, int dilation_w) {
    unpool(dy, index, dx, n, c, WINDOWS);
}

extern "C" __global__ void max_unpool2d_int32(const real* __restrict__ dy,
                                              const int* __restrict__ index, real* __restrict__ dx,
                                              long long n, int h, int w, int c, int out_h,
                                              int out_w, int kernel_h, int kernel_w, int stride_h,
                                              int stride_w, int padding_h, int padding_w,
                                              int dilation_h, int dilation_w) {
    unpool(dy, index, dx, n, c, WINDOWS);
}

// The same where windows lie apart and c fills vectors: the pixels from one window's start to the
// next one's (down, and to the right) are a thread's, so each gradient is read once.
extern "C" __global__ void max_unpool2d_apart(const real* __restrict__ dy,
                                              const unsigned char* __restrict__ index,
                                              real* __restrict__ dx, long long n, int h, int w,
                                              int c, int out_h, int out_w, int kernel_h,
                                              int kernel_w, int stride_h, int stride_w,
                                              int padding_h, int padding_w, int dilation_h,
                                              int dilation_w) {
    if (!is_aligned(dy)) {  // a view that begins anywhere
        unpool(dy, index, dx, n, c, WINDOWS);
        return;
    }
    typedef Pack<unsigned char, VECTOR> Taps;
    const int rows = (h + padding_h + stride_h - 1) / stride_h;
    const int columns = (w + padding_w + stride_w - 1) / stride_w;
    const long long packs = c / VECTOR, count = n * rows * columns * packs;
    for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < count;
         e += (long long)gridDim.x * blockDim.x) {
        const int j = int(e / packs % columns), i = int(e / packs / columns % rows);
        const long long image = e / packs / columns / rows, channel = e % packs;
        const bool is_window = i < out_h && j < out_w;
        const long long at = ((image * out_h + i) * out_w + j) * packs + channel;
        Vector slope = {};
        Taps taps = {};
        if (is_window) {
            slope = ((const Vector*)dy)[at];
            taps = ((const Taps*)index)[at];
        }
        for (int down = 0; down < stride_h; down++)
            for (int right = 0; right < stride_w; right++) {
                const int a = i * stride_h - padding_h + down, b = j * stride_w - padding_w + right;
                if (a < 0 || a >= h || b < 0 || b >= w) continue;
                const int r = down / dilation_h, s = right / dilation_w;
                const bool is_tap = is_window && r * dilation_h == down && s * dilation_w == right &&
                                    r < kernel_h && s < kernel_w;
                Vector v;
                for (int k = 0; k < VECTOR; k++)
                    v.at[k] = is_tap && taps.at[k] == r * kernel_w + s ? slope.at[k] : 0;
                ((Vector*)dx)[((image * h + a) * w + b) * packs + channel] = v;
            }
    }
}

// The pixels of x that index names, (n, out_h, out_w, c); 0 for a window that saw none.
template <class Index>
__device__ __forceinline__ void take(const real* x, const Index* index, real* y, long long n, int c,
                                     const Windows& windows) {
    const long long count = n * windows.y.out * windows.x.out * c;
    const int taps = windows.y.kernel * windows.x.kernel;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (long long)gridDim.x * blockDim.x) {
        const long long pixel = i / c, line = pixel / windows.x.out, image = line / windows.y.out;
        const int tap = index[i], r = tap / windows.x.kernel;
        const int a = windows.y.pixel(int(line % windows.y.out), r);
        const int b = windows.x.pixel(int(pixel % windows.x.out), tap - r * windows.x.kernel);
        const bool is_pixel = tap < taps && a >= 0 && a < windows.y.size && b >= 0 &&
                              b < windows.x.size;
        const long long row = image * windows.y.size + a;
        y[i] = is_pixel ? x[(row * windows.x.size + b) * c + i - pixel * c] : 0;
    }
}

extern "C" __global__ void take_pixels(const real* __restrict__ x,
                                       const unsigned char* __restrict__ index,
                                       real* __restrict__ y, long long n, int h, int w, int c,
                                       int out_h, int out_w, int kernel_h, int kernel_w,
                                       int stride_h, int stride_w, int padding_h, int padding_w,
                                       int dilation_h, int dilation_w) {
    take(x, index, y, n, c, WINDOWS);
}

extern "C" __global__ void take_pixels_int32(const real* __restrict__ x,
                                             const int* __restrict__ index, real* __restrict__ y,
                                             long long n, int h, int w, int c, int out_h, int out_w,
                                             int kernel_h, int kernel_w, int stride_h, int stride_w,
                                             int padding_h, int padding_w, int dilation_h,
                                             int dilation_w) {
    take(x, index, y, n, c, WINDOWS);
}

// -- pixels read once, through shared memory -------------------------------------------------------

extern "C" __global__ void max_pool2d_staged(const real* __restrict__ x, real* __restrict__ y,
                                             unsigned char* __restrict__ index, long long n, int h,
                                             int w, int c, int out_h, int out_w, int kernel_h,
                                             int kernel_w, int stride_h, int stride_w,
                                             int padding_h, int padding_w, int dilation_h,
                                             int dilation_w, real lowest, int tall, int wide,
                                             int deep) {
    extern __shared__ real staged[];
    const Windows windows = WINDOWS;
    const long long tiles = Tile::count(n, out_h, out_w, c, tall, wide, deep);
    for (long long t = blockIdx.x; t < tiles; t += gridDim.x) {
        const Tile tile(t, out_h, out_w, c, tall, wide, deep);
        const int top = max(windows.y.pixel(tile.top, 0), 0);
        const int left = max(windows.x.pixel(tile.left, 0), 0);
        const int bottom = min(windows.y.pixel(tile.bottom - 1, kernel_h - 1) + 1, h);
        const int right = min(windows.x.pixel(tile.right - 1, kernel_w - 1) + 1, w);
        const real* image = x + tile.image * h * w * c;
        const auto pixels = stage(staged, image, w, c, top, bottom, left, max(right, left),
                                  tile.channel, tile.channels);
        __syncthreads();
        auto start = [&](int i) {
            const long long row = tile.image * out_h + tile.top + i;
            return index + (row * out_w + tile.left) * c + tile.channel;
        };
        const int row = (tile.right - tile.left) * tile.channels;
        by_sectors(tile.bottom - tile.top, row, start, [&](int i, int e) {
            const int j = e / tile.channels, k = e - j * tile.channels;
            const Picture<const real> channel{pixels.origin + k, pixels.row, pixels.pixel};
            const long long to = start(i) - index + (long long)j * c + k;
            take_best<1>(channel, windows, tile.top + i, tile.left + j, lowest, y + to, index + to);
        });
        __syncthreads();  // the next tile's pixels take the place
    }
}

extern "C" __global__ void max_unpool2d_staged(const real* __restrict__ dy,
                                               const unsigned char* __restrict__ index,
                                               real* __restrict__ dx, long long n, int h, int w,
                                               int c, int out_h, int out_w, int kernel_h,
                                               int kernel_w, int stride_h, int stride_w,
                                               int padding_h, int padding_w, int dilation_h,
                                               int dilation_w, int tall, int wide, int deep) {
    extern __shared__ real staged[];
    const Windows windows = WINDOWS;
    const long long tiles = Tile::count(n, h, w, c, tall, wide, deep);
    for (long long t = blockIdx.x; t < tiles; t += gridDim.x) {
        const Tile tile(t, h, w, c, tall, wide, deep);
        const int top = windows.y.first_window(tile.top);
        const int left = windows.x.first_window(tile.left);
        const int bottom = max(windows.y.end_window(tile.bottom - 1), top);
        const int right = max(windows.x.end_window(tile.right - 1), left);
        const long long image = tile.image * out_h * out_w * c;
        const int seen = (bottom - top) * (right - left) * tile.channels;
        auto* staged_index = (unsigned char*)(staged + seen);
        const auto slopes = stage(staged, dy + image, out_w, c, top, bottom, left, right,
                                  tile.channel, tile.channels);
        const auto taps = stage(staged_index, index + image, out_w, c, top, bottom, left, right,
                                tile.channel, tile.channels);
        __syncthreads();
        auto start = [&](int i) {
            return dx + ((tile.image * h + tile.top + i) * w + tile.left) * c + tile.channel;
        };
        const int row = (tile.right - tile.left) * tile.channels;
        by_sectors(tile.bottom - tile.top, row, start, [&](int i, int e) {
            const int j = e / tile.channels, k = e - j * tile.channels;
            const Picture<const real> slope{slopes.origin + k, slopes.row, slopes.pixel};
            const Picture<const unsigned char> tap{taps.origin + k, taps.row, taps.pixel};
            start(i)[(long long)j * c + k] =
                won(slope, tap, windows, tile.top + i, tile.left + j);
        });
        __syncthreads();  // the next tile's gradients take the place
    }
}
