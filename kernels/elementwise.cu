// Loops over all elements, the CUDA reading of elementwise.py: every element is read once and
// written once, neighbouring threads taking neighbouring vectors of 16 bytes.
#include "vector.cuh"

// y = a + b; y may be a or b. The last elements that fill no vector, and arrays that do not lie on
// a multiple of 16 bytes, go one by one.
extern "C" __global__ void add(const real* a, const real* b, real* y, long long n) {
    const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long step = (long long)gridDim.x * blockDim.x;
    const long long vectors = is_aligned(a) && is_aligned(b) && is_aligned(y) ? n / VECTOR : 0;
    for (long long i = first; i < vectors; i += step) {
        const Vector u = ((const Vector*)a)[i], v = ((const Vector*)b)[i];
        Vector w;
        for (int j = 0; j < VECTOR; j++) w.at[j] = u.at[j] + v.at[j];
        ((Vector*)y)[i] = w;
    }
    for (long long i = vectors * VECTOR + first; i < n; i += step) y[i] = a[i] + b[i];
}

// Element e of each row of T goes from column first + e to column to + e.
template <class T>
__device__ __forceinline__ void copy(const T* source, long long source_width, long long first,
                                     T* target, long long target_width, long long to,
                                     long long rows, long long count) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < rows * count;
         i += step) {
        const long long row = i / count, e = i - row * count;
        target[row * target_width + to + e] = source[row * source_width + first + e];
    }
}

// target[i, to : to + count] = source[i, first : first + count] for each of the rows i: whole sectors
// are moved where all these are multiples of 8 numbers; else use the two below.
extern "C" __global__ void copy_columns(const real* __restrict__ source, long long source_width,
                                        long long first, real* __restrict__ target,
                                        long long target_width, long long to, long long rows,
                                        long long count) {
    const bool whole = (source_width | first | target_width | to | count) % VECTOR == 0;
    if (whole && is_aligned(source) && is_aligned(target))
        copy((const Vector*)source, source_width / VECTOR, first / VECTOR, (Vector*)target,
             target_width / VECTOR, to / VECTOR, rows, count / VECTOR);
    else
        copy(source, source_width, first, target, target_width, to, rows, count);
}

// y (rows, of_a + of_b) and its columns in two parts, a (rows, of_a) and b (rows, of_b). Tiles of
// ``tile`` rows, a multiple of 8, pass through shared memory: there and back they are contiguous pieces
// of whole sectors, where a row alone would begin and end amid a sector that its neighbour moves again.
struct Columns {
    int width, to, count;  // of a tile's rows; the part's first column and how many it has

    __device__ __forceinline__ int at(int e) const { return e / count * width + to + e % count; }
};

// y from a and b.
extern "C" __global__ void join_columns(const real* __restrict__ a, int of_a,
                                        const real* __restrict__ b, int of_b, real* __restrict__ y,
                                        long long rows, int tile) {
    extern __shared__ real joined[];
    const int width = of_a + of_b;
    for (long long first = (long long)blockIdx.x * tile; first < rows;
         first += (long long)gridDim.x * tile) {
        const int here = int(rows - first < tile ? rows - first : tile);
        auto fill = [&](const real* part, Columns own) {
            for (int e = threadIdx.x; e < here * own.count; e += blockDim.x)
                joined[own.at(e)] = part[first * own.count + e];
        };
        fill(a, {width, 0, of_a});
        fill(b, {width, of_a, of_b});
        __syncthreads();
        for (int e = threadIdx.x; e < here * width; e += blockDim.x) y[first * width + e] = joined[e];
        __syncthreads();  // the next tile takes the place
    }
}

// a and b from y.
extern "C" __global__ void split_columns(const real* __restrict__ y, real* __restrict__ a, int of_a,
                                         real* __restrict__ b, int of_b, long long rows, int tile) {
    extern __shared__ real joined[];
    const int width = of_a + of_b;
    for (long long first = (long long)blockIdx.x * tile; first < rows;
         first += (long long)gridDim.x * tile) {
        const int here = int(rows - first < tile ? rows - first : tile);
        for (int e = threadIdx.x; e < here * width; e += blockDim.x) joined[e] = y[first * width + e];
        __syncthreads();
        auto drain = [&](real* part, Columns own) {
            for (int e = threadIdx.x; e < here * own.count; e += blockDim.x)
                part[first * own.count + e] = joined[own.at(e)];
        };
        drain(a, {width, 0, of_a});
        drain(b, {width, of_a, of_b});
        __syncthreads();  // the next tile takes the place
    }
}
