// The loops of batch normalisation, the CUDA reading of batch_norm.py. Each array is read once and
// written once; what belongs to a channel stays in registers, and sums are those of columns.cuh.
// A launch costs as much as a pass over a small array: what is computed once a channel has none of
// its own, the last of those who sum does it.
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

// What the passes over the pixels read of channel i, and its running statistics moved towards the
// batch's. In double, as in the definition; what is read with the pixels is rounded to real.
__device__ __forceinline__ void put_statistics(long long i, double middle, double variance,
                                               long long m, const real* weight, const real* bias,
                                               double eps, double momentum, real* mean,
                                               double* rate, real* scale, real* shift,
                                               real* running_mean, real* running_variance) {
    const double r = 1 / sqrt(variance + eps), s = weight[i] * r;
    mean[i] = real(middle);
    rate[i] = r;
    scale[i] = real(s);
    shift[i] = real(bias[i] - middle * s);
    if (running_mean) running_mean[i] += real(momentum * (middle - running_mean[i]));
    const double unbiased = variance * m / (m > 1 ? m - 1 : 1);
    if (running_variance) running_variance[i] += real(momentum * (unbiased - running_variance[i]));
}

// store(place, column, mean, squares about it) of each part of the rows. The differences from the
// part's first row are summed, so no digit is lost where the mean is large: with d = x − pivot over
// n rows,   mean = pivot + Σd/n,   squares = Σd² − (Σd)²/n.
template <class G>
__device__ __forceinline__ void two_moments(const Tiles& tiles, const real* x, long long count,
                                            G store) {
    const long long c = tiles.c;
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
            store(at, column, x[part.first * c + column] + sum / n, rest < 0 ? 0 : rest);
        });
}

// Of each part: the means (count, C) of the columns and the squares about them.
extern "C" __global__ void moments(const real* __restrict__ x, double* __restrict__ means,
                                   double* __restrict__ squares, long long count, long long m,
                                   long long c, int rows) {
    const Tiles tiles(m, c, rows, is_aligned(x));
    two_moments(tiles, x, count, [&](long long at, long long, double middle, double about) {
        means[at] = middle;
        squares[at] = about;
    });
}

// The statistics at once, of so few rows that they are one part.
extern "C" __global__ void statistics(const real* __restrict__ x, const real* __restrict__ weight,
                                      const real* __restrict__ bias, double eps, double momentum,
                                      real* mean, double* rate, real* scale, real* shift,
                                      real* running_mean, real* running_variance, long long m,
                                      long long c, int rows) {
    const Tiles tiles(m, c, rows, is_aligned(x));
    two_moments(tiles, x, 1, [&](long long, long long i, double middle, double about) {
        put_statistics(i, middle, about / m, m, weight, bias, eps, momentum, mean, rate, scale,
                       shift, running_mean, running_variance);
    });
}

// The statistics from the moments of the parts, by Chan's formula.
extern "C" __global__ void merge_statistics(
    const double* __restrict__ means, const double* __restrict__ squares,
    const real* __restrict__ weight, const real* __restrict__ bias, double eps, double momentum,
    real* mean, double* rate, real* scale, real* shift, real* running_mean,
    real* running_variance, long long count, long long m, long long c, int rows) {
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
    if (is_column && threadIdx.y == 0)
        put_statistics(column, middle, rest / m, m, weight, bias, eps, momentum, mean, rate, scale,
                       shift, running_mean, running_variance);
}

// The gradients of channel i's weight and bias, and with what dx is made of g and x, from Σ g and
// Σ g·(x − mean).
__device__ __forceinline__ void put_slopes(long long i, double sum, double product, long long m,
                                           const real* mean, const double* rate,
                                           const real* weight, real* d_weight, real* d_bias,
                                           real* slope, real* constant) {
    const double scale = weight[i] * rate[i], dw = product * rate[i];
    const double s = -scale * dw * rate[i] / m;
    d_weight[i] = real(dw);
    d_bias[i] = real(sum);
    slope[i] = real(s);
    constant[i] = real(-scale * sum / m - s * mean[i]);
}

// store(place, column, Σ g, Σ g·(x − mean)) of each part of the rows.
template <class G>
__device__ __forceinline__ void two_gradients(const Tiles& tiles, const real* grad, const real* x,
                                              const real* mean, const real* scale,
                                              const real* shift, bool relu, long long count,
                                              G store) {
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
        [&](const Part&, long long at, long long column, double sum, double product) {
            store(at, column, sum, product);
        });
}

// Of each part: Σ g and Σ g·(x − mean) down the columns, (count, C) each.
extern "C" __global__ void backward_sums(const real* __restrict__ grad, const real* __restrict__ x,
                                         const real* __restrict__ mean,
                                         const real* __restrict__ scale,
                                         const real* __restrict__ shift, double* __restrict__ sums,
                                         double* __restrict__ products, long long count,
                                         long long m, long long c, int rows, bool relu) {
    const Tiles tiles(m, c, rows, is_aligned(grad) && is_aligned(x));
    two_gradients(tiles, grad, x, mean, scale, shift, relu, count,
                  [&](long long at, long long, double sum, double product) {
                      sums[at] = sum;
                      products[at] = product;
                  });
}

// The slopes at once, of so few rows that they are one part.
extern "C" __global__ void slopes(const real* __restrict__ grad, const real* __restrict__ x,
                                  const real* __restrict__ mean, const double* __restrict__ rate,
                                  const real* __restrict__ scale, const real* __restrict__ shift,
                                  const real* __restrict__ weight, real* d_weight, real* d_bias,
                                  real* slope, real* constant, long long m, long long c, int rows,
                                  bool relu) {
    const Tiles tiles(m, c, rows, is_aligned(grad) && is_aligned(x));
    two_gradients(tiles, grad, x, mean, scale, shift, relu, 1,
                  [&](long long, long long i, double sum, double product) {
                      put_slopes(i, sum, product, m, mean, rate, weight, d_weight, d_bias, slope,
                                 constant);
                  });
}

// The slopes from the sums of the parts.
extern "C" __global__ void merge_slopes(const double* __restrict__ sums,
                                        const double* __restrict__ products,
                                        const real* __restrict__ mean,
                                        const double* __restrict__ rate,
                                        const real* __restrict__ weight, real* d_weight,
                                        real* d_bias, real* slope, real* constant, long long count,
                                        long long m, long long c) {
    const long long column = (long long)blockIdx.x * LANES + threadIdx.x;
    const bool is_column = column < c;
    const double s = over_parts(count, is_column, [&](long long p) { return sums[p * c + column]; });
    const double q =
        over_parts(count, is_column, [&](long long p) { return products[p * c + column]; });
    if (is_column && threadIdx.y == 0)
        put_slopes(column, s, q, m, mean, rate, weight, d_weight, d_bias, slope, constant);
}
