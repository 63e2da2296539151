// Loops over a matrix (M, C) whose rows are pixels, with numbers that belong to the columns.
//
// A block takes a tile at a time: as many whole rows as its threads hold vectors. So a tile is one
// contiguous piece of memory whatever C is, and a thread meets the same columns in every tile: what
// belongs to its columns (a scale, a sum) stays in its registers.
//
//     C = 3, a vector of 4, tiles of 8 rows       thread 0: columns 0 1 2 0
//     0 1 2 0 | 1 2 0 1 | 2 0 1 2 | …             thread 1: columns 1 2 0 1  …
//
// A matrix wider than a block's threads hold is cut: then a tile is a piece of one row, and
// blockIdx.y says which.
//
// Sums are taken in one order, whatever the grid: of each thread's elements from the top down, in
// strips of 16 tiles in the arrays' own precision, of strips in float64; then of a tile's rows as a
// tree; so for each *part* of the rows, and at last of the parts.
#include "vector.cuh"

constexpr int THREADS = 256;
constexpr int TILE = THREADS * VECTOR;  // elements of a tile at most
constexpr int STRIP = 16;               // tiles summed before float64 takes over
constexpr int LANES = 32, DEEP = 8;     // threads that add parts: columns × parts at a time

struct Tiles {
    long long m, c, first;  // rows and columns of the matrix, first column of the tile
    int rows, width;        // of the tile
    bool wide;              // whether a thread's elements are one vector, or THREADS apart

    __device__ Tiles(long long m, long long c, int rows, bool aligned)
        : m(m), c(c), first((long long)blockIdx.y * TILE), rows(rows) {
        width = c - first < TILE ? int(c - first) : TILE;
        wide = aligned && rows * c % VECTOR == 0;
    }

    // The place in the tile of this thread's element j.
    __device__ int place(int j) const {
        return wide ? int(threadIdx.x) * VECTOR + j : int(threadIdx.x) + j * THREADS;
    }

    // How many elements the tile from ``row`` on has.
    __device__ int size(long long row) const {
        return int(m - row < rows ? m - row : rows) * width;
    }

    __device__ Vector load(const real* x, long long row) const {
        const real* tile = x + row * c + first;
        const int n = size(row);
        if (wide && place(VECTOR - 1) < n) return ((const Vector*)tile)[threadIdx.x];
        Vector v;
        for (int j = 0; j < VECTOR; j++) v.at[j] = place(j) < n ? tile[place(j)] : 0;
        return v;
    }

    __device__ void store(real* y, long long row, const Vector& v) const {
        real* tile = y + row * c + first;
        const int n = size(row);
        if (wide && place(VECTOR - 1) < n) {
            ((Vector*)tile)[threadIdx.x] = v;
            return;
        }
        for (int j = 0; j < VECTOR; j++)
            if (place(j) < n) tile[place(j)] = v.at[j];
    }

    // What of one number a column, (C,), belongs to this thread's columns.
    __device__ Vector of_columns(const real* numbers) const {
        Vector v;
        if (wide && width % VECTOR == 0 && is_aligned(numbers)) {
            if (place(0) < rows * width)
                return ((const Vector*)(numbers + first))[threadIdx.x % (width / VECTOR)];
        }
        for (int j = 0; j < VECTOR; j++)
            v.at[j] = place(j) < rows * width ? numbers[first + place(j) % width] : 0;
        return v;
    }

    // The sums down the tile's rows of what each thread has for its elements: in sums[0 … width).
    __device__ void fold(double* sums, const double* own) const {
        for (int j = 0; j < VECTOR; j++)
            if (place(j) < rows * width) sums[place(j)] = own[j];
        __syncthreads();
        for (int n = rows, half; n > 1; n = half) {
            half = (n + 1) / 2;  // row i takes row half + i
            for (int e = threadIdx.x; e < (n - half) * width; e += THREADS)
                sums[e] += sums[half * width + e];
            __syncthreads();
        }
    }
};

// The rows first … last − 1 of one part of several, in whole tiles.
struct Part {
    long long first, last;
    __device__ Part(long long number, long long parts, long long m, int rows) {
        const long long tiles = (m + rows - 1) / rows, share = (tiles + parts - 1) / parts * rows;
        first = number * share < m ? number * share : m;
        last = first + share < m ? first + share : m;
    }
};

// Σ over the parts of value(part), for the column of this thread, in every thread of its column.
// Blocks are LANES × DEEP threads.
template <class F>
__device__ __forceinline__ double over_parts(long long parts, bool is_column, F value) {
    __shared__ double sums[DEEP][LANES];
    double sum = 0;
    if (is_column)
        for (long long p = threadIdx.y; p < parts; p += DEEP) sum += value(p);
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    double total = 0;
    for (int i = 0; i < DEEP; i++) total += sums[i][threadIdx.x];
    __syncthreads();  // the next call writes there again
    return total;
}
