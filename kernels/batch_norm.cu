// The loops of batch normalisation, the CUDA reading of batch_norm.py. Each array is read once and
// written once; what belongs to a channel stays in registers, and sums are those of columns.cuh.
#include "columns.cuh"

// y = scale·x + shift, negative values 0 with relu; NaN stays NaN.
extern "C" __global__ void scale_shift(const real* __restrict__ x, const real* __restrict__ scale,
                                       const real* __restrict__ shift, real* __restrict__ y,
                                       long long m, long long c, int rows, bool relu) {
    const Tiles tiles(m, c, rows, is_aligned(x) && is_aligned(y));
    const Vector a = tiles.of_columns(scale), b = tiles.of_columns(shift);
    for (long long row = (long long)blockIdx.x * rows; row < m;
         row += (long long)gridDim.x * rows) {
        Vector v = tiles.load(x, row);
        for (int j = 0; j < VECTOR; j++) {
            const real value = a.at[j] * v.at[j] + b.at[j];
            v.at[j] = relu && value < 0 ? 0 : value;
        }
        tiles.store(y, row, v);
    }
}

// dx = scale·g + slope·x + constant, where g is grad past the ReLU.
extern "C" __global__ void backward_input(const real* __restrict__ grad,
                                          const real* __restrict__ x,
                                          const real* __restrict__ scale,
                                          const real* __restrict__ shift,
                                          const real* __restrict__ slope,
                                          const real* __restrict__ constant,
                                          real* __restrict__ dx, long long m, long long c, int rows,
                                          bool relu) {
    const Tiles tiles(m, c, rows, is_aligned(grad) && is_aligned(x) && is_aligned(dx));
    const Vector a = tiles.of_columns(scale), b = tiles.of_columns(shift);
    const Vector s = tiles.of_columns(slope), d = tiles.of_columns(constant);
    for (long long row = (long long)blockIdx.x * rows; row < m;
         row += (long long)gridDim.x * rows) {
        const Vector g = tiles.load(grad, row), v = tiles.load(x, row);
        Vector result;
        for (int j = 0; j < VECTOR; j++) {
            const bool passes = !relu || a.at[j] * v.at[j] + b.at[j] > 0;
            result.at[j] = a.at[j] * (passes ? g.at[j] : 0) + s.at[j] * v.at[j] + d.at[j];
        }
        tiles.store(dx, row, result);
    }
}

// For each part of the rows and each column two sums of what f makes of the elements; then
// finish(part, column, their places, the two sums) stores what is wanted of them.
template <class F, class G>
__device__ __forceinline__ void two_sums(const Tiles& tiles, long long count, F f, G finish) {
    __shared__ double one[TILE], two[TILE];
    for (long long p = blockIdx.x; p < count; p += gridDim.x) {
        const Part part(p, count, tiles.m, tiles.rows);
        double own_one[VECTOR] = {}, own_two[VECTOR] = {};
        for (long long low = part.first; low < part.last; low += STRIP * tiles.rows) {
            Vector strip_one = {}, strip_two = {};
            for (long long row = low; row < part.last && row < low + STRIP * tiles.rows;
                 row += tiles.rows)
                f(part, row, strip_one, strip_two);
            for (int j = 0; j < VECTOR; j++) {
                own_one[j] += strip_one.at[j];
                own_two[j] += strip_two.at[j];
            }
        }
        tiles.fold(one, own_one);
        tiles.fold(two, own_two);
        for (int e = threadIdx.x; e < tiles.width; e += THREADS)
            finish(part, p * tiles.c + tiles.first + e, tiles.first + e, one[e], two[e]);
        __syncthreads();  // the next part writes to the sums again
    }
}

// Of each part of the rows: the means (count, C) of the columns and the squares about them. The
// differences from the part's first row are summed, so no digit is lost where the mean is large:
// with d = x − pivot over n rows,   mean = pivot + Σd/n,   squares = Σd² − (Σd)²/n.
extern "C" __global__ void moments(const real* __restrict__ x, double* __restrict__ means,
                                   double* __restrict__ squares, long long count, long long m,
                                   long long c, int rows) {
    const Tiles tiles(m, c, rows, is_aligned(x));
    Vector pivot = {};
    two_sums(
        tiles, count,
        [&](const Part& part, long long row, Vector& sum, Vector& sum_of_squares) {
            if (row == part.first) pivot = tiles.of_columns(x + row * c);
            const Vector v = tiles.load(x, row);
            const int n = tiles.size(row);
            for (int j = 0; j < VECTOR; j++) {
                const real d = tiles.place(j) < n ? v.at[j] - pivot.at[j] : 0;
                sum.at[j] += d;
                sum_of_squares.at[j] += d * d;
            }
        },
        [&](const Part& part, long long at, long long column, double sum, double sum_of_squares) {
            const double n = double(part.last - part.first);
            const double rest = sum_of_squares - sum * sum / n;
            means[at] = x[part.first * c + column] + sum / n;
            squares[at] = rest < 0 ? 0 : rest;
        });
}

// Mean and variance of the columns from those of the parts, by Chan's formula.
extern "C" __global__ void merge_moments(const double* __restrict__ means,
                                         const double* __restrict__ squares,
                                         double* __restrict__ mean, double* __restrict__ variance,
                                         long long count, long long m, long long c, int rows) {
    const long long column = (long long)blockIdx.x * LANES + threadIdx.x;
    const bool is_column = column < c;
    auto share = [&](long long p) {
        const Part part(p, count, m, rows);
        return double(part.last - part.first);
    };
    const double middle = over_parts(count, is_column, [&](long long p) {
        return share(p) * means[p * c + column];
    }) / m;
    const double rest = over_parts(count, is_column, [&](long long p) {
        const double d = means[p * c + column] - middle;
        return squares[p * c + column] + share(p) * d * d;
    });
    if (is_column && threadIdx.y == 0) {
        mean[column] = middle;
        variance[column] = rest / m;
    }
}

// Of each part: Σ g and Σ g·(x − mean) down the columns, (count, C) each.
extern "C" __global__ void backward_sums(const real* __restrict__ grad, const real* __restrict__ x,
                                         const real* __restrict__ mean,
                                         const real* __restrict__ scale,
                                         const real* __restrict__ shift, double* __restrict__ sums,
                                         double* __restrict__ products, long long count,
                                         long long m, long long c, int rows, bool relu) {
    const Tiles tiles(m, c, rows, is_aligned(grad) && is_aligned(x));
    const Vector a = tiles.of_columns(scale), b = tiles.of_columns(shift);
    const Vector mu = tiles.of_columns(mean);
    two_sums(
        tiles, count,
        [&](const Part&, long long row, Vector& sum, Vector& product) {
            const Vector g = tiles.load(grad, row), v = tiles.load(x, row);
            const int n = tiles.size(row);
            for (int j = 0; j < VECTOR; j++) {
                const bool passes = !relu || a.at[j] * v.at[j] + b.at[j] > 0;
                const real value = passes && tiles.place(j) < n ? g.at[j] : 0;
                sum.at[j] += value;
                product.at[j] += value * (v.at[j] - mu.at[j]);
            }
        },
        [&](const Part&, long long at, long long, double sum, double product) {
            sums[at] = sum;
            products[at] = product;
        });
}

// The sums of the parts, for both.
extern "C" __global__ void add_parts(const double* __restrict__ sums,
                                     const double* __restrict__ products,
                                     double* __restrict__ one, double* __restrict__ two,
                                     long long count, long long c) {
    const long long column = (long long)blockIdx.x * LANES + threadIdx.x;
    const bool is_column = column < c;
    const double s = over_parts(count, is_column, [&](long long p) { return sums[p * c + column]; });
    const double q =
        over_parts(count, is_column, [&](long long p) { return products[p * c + column]; });
    if (is_column && threadIdx.y == 0) {
        one[column] = s;
        two[column] = q;
    }
}
