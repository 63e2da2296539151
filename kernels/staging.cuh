// Pixels through shared memory: a block that computes a tile of results first copies all pixels that
// they need, once, and its threads then read them from there as often as they like.
//
// A tile has at most 32 channels: pieces of 128 bytes of float32, 32 of the index of max-pooling, so
// whole sectors where C is a multiple of 32. With fewer channels a row of the tile is one contiguous
// piece of memory, whatever C is.
#include "vector.cuh"

// A rectangle of pixels in memory: pixel (0, 0) would stand at ``origin``.
template <class T>
struct Picture {
    T* origin;
    long long row, pixel;

    __device__ T* at(int y, int x) const { return origin + y * row + x * pixel; }
};

// A tile of results: rows and columns first … end − 1 and ``channels`` channels of one image. Tile
// number t counts channels fastest, then columns, rows, images.
struct Tile {
    int top, bottom, left, right, channel, channels;
    long long image;

    __device__ Tile(long long t, int rows, int columns, int c, int tall, int wide, int deep) {
        const int across = (columns + wide - 1) / wide, down = (rows + tall - 1) / tall;
        const int layers = (c + deep - 1) / deep;
        channel = int(t % layers) * deep;
        left = int(t / layers % across) * wide;
        top = int(t / layers / across % down) * tall;
        image = t / layers / across / down;
        channels = min(deep, c - channel);
        right = min(left + wide, columns);
        bottom = min(top + tall, rows);
    }

    __device__ static long long count(long long n, int rows, int columns, int c, int tall, int wide,
                                      int deep) {
        const long long across = (columns + wide - 1) / wide, down = (rows + tall - 1) / tall;
        return n * down * across * ((c + deep - 1) / deep);
    }
};

// Calls f(y, e) for element e of row y, of ``rows`` rows of ``size`` elements each that begin in memory
// at start(y). Warps set out where a sector of 32 bytes begins, so no two of their requests meet in
// one: what of a row comes before its first whole sector is taken last. Rows that follow one another
// are taken as one.
template <class Start, class F>
__device__ __forceinline__ void by_sectors(int rows, int size, Start start, F f) {
    constexpr int BYTES = sizeof(*start(0)), SECTOR = 32 / BYTES;
    const bool joined = start(rows - 1) == start(0) + (rows - 1ll) * size;
    const int lines = joined ? 1 : rows, length = joined ? rows * size : size;
    const int padded = (length + SECTOR - 1) / SECTOR * SECTOR;
    for (int i = threadIdx.x; i < lines * padded; i += blockDim.x) {
        const int y = i / padded;
        if (i - y * padded >= length) continue;
        const auto elements = reinterpret_cast<unsigned long long>(start(y)) / BYTES;
        const int e = (i - y * padded + int(-elements % SECTOR)) % length;
        f(y + e / size, e % size);
    }
}

// Copies rows top … bottom − 1 and columns left … right − 1 of an image with rows of ``width``
// pixels of c channels, of which ``deep`` from ``channel`` on.
template <class T>
__device__ __forceinline__ Picture<const T> stage(T* to, const T* image, int width, int c, int top,
                                                  int bottom, int left, int right, int channel,
                                                  int deep) {
    const int row = (right - left) * deep;
    auto start = [&](int y) {
        return image + ((long long)(top + y) * width + left) * c + channel;
    };
    by_sectors(bottom - top, row, start, [&](int y, int e) {
        const int x = e / deep;
        to[y * row + e] = start(y)[(long long)x * c + e - x * deep];
    });
    return {to - (long long)top * row - left * deep, row, deep};
}
