// Sums over all pixels a channel, the CUDA reading of channel_sums.py. The order of the sums is that
// of columns.cuh; no two threads ever add to one place.
#include "columns.cuh"

// parts[p, c] = Σ over the rows of part p of f's value for the element, which f may also store.
// Where one part is all it goes to total.
template <class F>
__device__ __forceinline__ void sum_parts(const Tiles& tiles, double* parts, real* total,
                                          long long count, F f) {
    __shared__ double sums[TILE];
    for (long long p = blockIdx.x; p < count; p += gridDim.x) {
        const Part part(p, count, tiles.m, tiles.rows);
        double own[VECTOR] = {};
        for (long long low = part.first; low < part.last; low += STRIP * tiles.rows) {
            Vector strip = {};
            for (long long row = low; row < part.last && row < low + STRIP * tiles.rows;
                 row += tiles.rows) {
                const Vector v = f(row);
                for (int j = 0; j < VECTOR; j++) strip.at[j] += v.at[j];
            }
            for (int j = 0; j < VECTOR; j++) own[j] += strip.at[j];
        }
        tiles.fold(sums, own);
        for (int e = threadIdx.x; e < tiles.width; e += THREADS) {
            if (count == 1) total[tiles.first + e] = real(sums[e]);
            else parts[p * tiles.c + tiles.first + e] = sums[e];
        }
        __syncthreads();  // the next part writes to sums again
    }
}

extern "C" __global__ void column_sums(const real* __restrict__ a, double* __restrict__ parts,
                                       real* __restrict__ total, long long count, long long m,
                                       long long c, int rows) {
    const Tiles tiles(m, c, rows, is_aligned(a));
    sum_parts(tiles, parts, total, count, [&](long long row) { return tiles.load(a, row); });
}

// g = grad where y > 0, else 0; and the parts of its sums.
extern "C" __global__ void relu_backward_sum(const real* __restrict__ grad,
                                             const real* __restrict__ y, real* __restrict__ g,
                                             double* __restrict__ parts,
                                             real* __restrict__ total, long long count, long long m,
                                             long long c, int rows) {
    const Tiles tiles(m, c, rows, is_aligned(grad) && is_aligned(y) && is_aligned(g));
    sum_parts(tiles, parts, total, count, [&](long long row) {
        Vector v = tiles.load(grad, row);
        const Vector gate = tiles.load(y, row);
        for (int j = 0; j < VECTOR; j++) v.at[j] = gate.at[j] > 0 ? v.at[j] : 0;
        tiles.store(g, row, v);
        return v;
    });
}

// sums[c] = Σ over the parts.
extern "C" __global__ void add_parts(const double* __restrict__ parts, real* __restrict__ sums,
                                     long long count, long long c) {
    const long long column = (long long)blockIdx.x * LANES + threadIdx.x;
    const double sum = over_parts(count, column < c,
                                  [&](long long p) { return parts[p * c + column]; });
    if (column < c && threadIdx.y == 0) sums[column] = (real)sum;
}
