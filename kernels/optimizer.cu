// One step of an optimiser on one parameter, the CUDA reading of optimizer.py: every array is read
// once and written once, 16 bytes at a time where all of them lie so.
#include "vector.cuh"

// The rules for one element; b (or m and v) and p are changed in place.

struct Sgd {
    real lr, momentum, take, decay;
    bool buffered, nesterov;

    __device__ void operator()(real& p, real g, real& b) const {
        real step = decay != 0 ? p * decay + g : g;
        if (buffered) {
            b = b * momentum + step * take;
            step = nesterov ? b * momentum + step : b;
        }
        p -= step * lr;
    }
};

struct Adam {
    real lr, take1, keep2, take2, root, eps, decay, shrink;

    __device__ void operator()(real& p, real g, real& m, real& v) const {
        p *= shrink;
        const real d = p * decay + g;
        m += (d - m) * take1;
        v = v * keep2 + d * d * take2;
        p -= m / (sqrt(v) / root + eps) * lr;
    }
};

extern "C" __global__ void sgd(real* p, const real* __restrict__ g, real* b, long long n, real lr,
                               real momentum, real take, real decay, bool nesterov) {
    const Sgd rule{lr, momentum, take, decay, b != nullptr, nesterov};
    const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long step = (long long)gridDim.x * blockDim.x;
    const bool wide = is_aligned(p) && is_aligned(g) && is_aligned(b);  // null is aligned
    const long long vectors = wide ? n / VECTOR : 0;
    for (long long i = first; i < vectors; i += step) {
        Vector x = ((Vector*)p)[i], buffer = {};
        const Vector slope = ((const Vector*)g)[i];
        if (b) buffer = ((Vector*)b)[i];
        for (int j = 0; j < VECTOR; j++) rule(x.at[j], slope.at[j], buffer.at[j]);
        ((Vector*)p)[i] = x;
        if (b) ((Vector*)b)[i] = buffer;
    }
    for (long long i = vectors * VECTOR + first; i < n; i += step) {
        real none = 0;
        rule(p[i], g[i], b ? b[i] : none);
    }
}

extern "C" __global__ void adam(real* p, const real* __restrict__ g, real* m, real* v, long long n,
                                real lr, real take1, real keep2, real take2, real root, real eps,
                                real decay, real shrink) {
    const Adam rule{lr, take1, keep2, take2, root, eps, decay, shrink};
    const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long step = (long long)gridDim.x * blockDim.x;
    const bool wide = is_aligned(p) && is_aligned(g) && is_aligned(m) && is_aligned(v);
    const long long vectors = wide ? n / VECTOR : 0;
    for (long long i = first; i < vectors; i += step) {
        Vector x = ((Vector*)p)[i], one = ((Vector*)m)[i], two = ((Vector*)v)[i];
        const Vector slope = ((const Vector*)g)[i];
        for (int j = 0; j < VECTOR; j++) rule(x.at[j], slope.at[j], one.at[j], two.at[j]);
        ((Vector*)p)[i] = x;
        ((Vector*)m)[i] = one;
        ((Vector*)v)[i] = two;
    }
    for (long long i = vectors * VECTOR + first; i < n; i += step) rule(p[i], g[i], m[i], v[i]);
}
