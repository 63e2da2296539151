// Softmax cross-entropy and its gradient in one pass, the CUDA reading of cross_entropy.py.
//
// A pixel's K logits are neighbours, so those of a block's pixels are one piece of memory. The block
// copies it to shared memory, 16 bytes a thread and whole sectors whatever K is; there each pixel
// becomes its gradient; and the piece goes out as it came in. Pixels stand an odd number of elements
// apart in shared memory, so that threads with a pixel each meet different banks.
//
// Where K is so large that only few pixels fit, a pixel has a group of 2, 4, … 32 threads, whose
// partial sums are joined in one order by shuffles.
#include "vector.cuh"

// The largest value, or the sum, over a group of neighbouring lanes; in every lane of the group.
__device__ __forceinline__ real group_max(real value, int group) {
    for (int d = group / 2; d > 0; d /= 2) {
        const real other = __shfl_xor_sync(0xffffffffu, value, d);
        value = other > value ? other : value;
    }
    return value;
}

__device__ __forceinline__ real group_sum(real value, int group) {
    for (int d = group / 2; d > 0; d /= 2) value += __shfl_xor_sync(0xffffffffu, value, d);
    return value;
}

// loss (m,) and grad (m, classes) from logits (m, classes), target (m,) and share (n, classes), of
// n pictures with ``pixels`` each. A block of ``tile``·group threads takes ``tile`` pixels.
extern "C" __global__ void cross_entropy(const real* __restrict__ logits,
                                         const long long* __restrict__ target,
                                         const real* __restrict__ share, real* __restrict__ loss,
                                         real* __restrict__ grad, long long m, long long pixels,
                                         int classes, long long ignored, int tile) {
    extern __shared__ real shared[];
    const int stride = classes | 1, group = blockDim.x / tile, lane = threadIdx.x % group;
    const bool wide = is_aligned(logits) && is_aligned(grad) && tile * classes % VECTOR == 0;
    real* z = shared + threadIdx.x / group * stride;  // of this thread's pixel

    for (long long first = (long long)blockIdx.x * tile; first < m;
         first += (long long)gridDim.x * tile) {
        const int here = int(m - first < tile ? m - first : tile), size = here * classes;
        const int vectors = wide ? size / VECTOR : 0;
        const real* source = logits + first * classes;
        real* slopes = grad + first * classes;
        auto at = [&](int e) -> real& { return shared[e / classes * stride + e % classes]; };

        for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
            const Vector v = ((const Vector*)source)[i];
            for (int j = 0; j < VECTOR; j++) at(i * VECTOR + j) = v.at[j];
        }
        for (int e = vectors * VECTOR + threadIdx.x; e < size; e += blockDim.x) at(e) = source[e];
        __syncthreads();

        // threads beyond the last pixel take part in the shuffles, and touch nothing
        const long long pixel = first + threadIdx.x / group;
        const bool is_pixel = pixel < m;
        const long long t = is_pixel ? target[pixel] : ignored;
        const real a = t == ignored ? 0 : share[pixel / pixels * classes + t];
        const int owner = a != 0 ? int(t % group) : 0;  // the lane that meets the chosen class
        const real chosen = a != 0 && lane == owner ? z[t] : 0;
        real top = is_pixel ? z[lane] : 0, total = 0;
        for (int k = lane; k < classes && is_pixel; k += group) top = z[k] > top ? z[k] : top;
        top = group_max(top, group);
        for (int k = lane; k < classes && is_pixel; k += group) {
            z[k] = exp(z[k] - top);  // a NaN that was not the largest comes in here, and in the sum
            total += z[k];
        }
        total = group_sum(total, group);
        const real scale = a / total;
        for (int k = lane; k < classes && is_pixel; k += group)
            z[k] = a != 0 ? z[k] * scale - (k == t ? a : 0) : 0;
        if (is_pixel && lane == owner) loss[pixel] = a != 0 ? a * (log(total) - (chosen - top)) : 0;
        __syncthreads();

        for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
            Vector v;
            for (int j = 0; j < VECTOR; j++) v.at[j] = at(i * VECTOR + j);
            ((Vector*)slopes)[i] = v;
        }
        for (int e = vectors * VECTOR + threadIdx.x; e < size; e += blockDim.x) slopes[e] = at(e);
        __syncthreads();  // the next tile's logits take the place
    }
}

// a[m] = share[n, target[m]], 0 where the target is void, for the pixels of picture n = blockIdx.y. Its
// shares come to shared memory first, for neighbours ask for any of them.
extern "C" __global__ void amounts(const long long* __restrict__ target,
                                   const real* __restrict__ share, real* __restrict__ a,
                                   long long pictures, long long pixels, int classes,
                                   long long ignored) {
    extern __shared__ real shared[];
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long n = blockIdx.y; n < pictures; n += gridDim.y) {
        for (int k = threadIdx.x; k < classes; k += blockDim.x) shared[k] = share[n * classes + k];
        __syncthreads();
        const long long first = n * pixels;
        for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < pixels; i += step) {
            const long long t = target[first + i];
            a[first + i] = t == ignored ? 0 : shared[t];
        }
        __syncthreads();  // the next picture's shares take the place
    }
}

// parts[n, b, k]: pixels of class k in picture n among those that block b sees, k = classes standing
// for what is no class; gridDim.y pictures at a time. A block holds as many labels as it has threads, and its
// threads look for a class each.
extern "C" __global__ void count_labels(const long long* __restrict__ target,
                                        long long* __restrict__ parts, long long pictures,
                                        long long pixels, int classes, long long ignored) {
    extern __shared__ int label[];
    for (long long n = blockIdx.y; n < pictures; n += gridDim.y) {
        const long long* picture = target + n * pixels;
        long long* counts = parts + (n * gridDim.x + blockIdx.x) * (classes + 1);
        for (int low = 0; low <= classes; low += blockDim.x) {
            const int k = low + threadIdx.x;
            long long count = 0;
            for (long long first = (long long)blockIdx.x * blockDim.x; first < pixels;
                 first += (long long)gridDim.x * blockDim.x) {
                const long long i = first + threadIdx.x, t = i < pixels ? picture[i] : ignored;
                const bool is_class = t >= 0 && t < classes;
                label[threadIdx.x] = t == ignored ? -1 : is_class ? int(t) : classes;
                __syncthreads();
                for (int j = 0; j < blockDim.x; j++) count += label[j] == k;
                __syncthreads();  // the next labels take the place
            }
            if (k <= classes) counts[k] = count;
        }
    }
}

// counts[n, k] = Σ_b parts[n, b, k].
extern "C" __global__ void add_counts(const long long* __restrict__ parts,
                                      long long* __restrict__ counts, long long n, int blocks,
                                      int columns) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n * columns;
         i += step) {
        const long long* first = parts + i / columns * blocks * columns + i % columns;
        long long count = 0;
        for (int b = 0; b < blocks; b++) count += first[b * columns];
        counts[i] = count;
    }
}
