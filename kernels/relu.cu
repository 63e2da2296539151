// ReLU and its gate of bits, the CUDA reading of relu.py.
//
// A warp takes 32 neighbouring elements at a time, eight times over. Its 32 votes on y > 0 are four
// bytes of the gate in the order of the elements, so that eight turns make 32 bytes, a whole
// sector, one byte a thread:
//
//     elements  0 … 31  32 … 63   …   224 … 255      turn j: element 32·j + lane
//     bytes     0 … 3    4 … 7    …    28 … 31       lane k: bits 8·(k % 4) … of turn k / 4
constexpr int TURNS = 8;
constexpr unsigned ALL = 0xffffffffu;  // threads of a warp: all take part in what it exchanges

// Calls f(its first element) for each 256 elements that the thread's warp takes.
template <class F>
__device__ __forceinline__ void by_warps(long long n, F f) {
    const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const long long warps = (long long)gridDim.x * blockDim.x / 32;
    for (long long w = warp; w * 32 * TURNS < n; w += warps) f(w * 32 * TURNS);
}

// The thread's element of each turn; 0 past the end.
__device__ __forceinline__ void load(const real* x, long long first, long long n, real* values) {
#pragma unroll
    for (int j = 0; j < TURNS; j++) {
        const long long i = first + 32 * j + threadIdx.x % 32;
        values[j] = i < n ? x[i] : real(0);
    }
}

__device__ __forceinline__ void store(const real* values, real* y, long long first, long long n) {
#pragma unroll
    for (int j = 0; j < TURNS; j++) {
        const long long i = first + 32 * j + threadIdx.x % 32;
        if (i < n) y[i] = values[j];
    }
}

// The gate's 32 bytes for the values that a warp holds.
__device__ __forceinline__ void store_positive(const real* values, unsigned char* gate,
                                               long long first, long long n) {
    const int lane = threadIdx.x % 32;
    unsigned own = 0;
#pragma unroll
    for (int j = 0; j < TURNS; j++) {
        const unsigned votes = __ballot_sync(ALL, values[j] > 0);
        if (lane / 4 == j) own = votes;
    }
    if (first + 8 * lane < n) gate[first / 8 + lane] = (unsigned char)(own >> 8 * (lane % 4));
}

// y = x where not x < 0, else 0: NaN stays NaN. The gate: y > 0.
extern "C" __global__ void relu(const real* __restrict__ x, real* __restrict__ y,
                                unsigned char* __restrict__ gate, long long n) {
    by_warps(n, [&](long long first) {
        real values[TURNS];
        load(x, first, n, values);
#pragma unroll
        for (int j = 0; j < TURNS; j++) values[j] = values[j] < 0 ? 0 : values[j];
        store(values, y, first, n);
        store_positive(values, gate, first, n);
    });
}

extern "C" __global__ void positive(const real* __restrict__ y, unsigned char* __restrict__ gate,
                                    long long n) {
    by_warps(n, [&](long long first) {
        real values[TURNS];
        load(y, first, n, values);
        store_positive(values, gate, first, n);
    });
}

// dx = grad where the gate's bit is 1, else 0.
extern "C" __global__ void relu_backward(const real* __restrict__ grad,
                                         const unsigned char* __restrict__ gate,
                                         real* __restrict__ dx, long long n) {
    const int lane = threadIdx.x % 32;
    by_warps(n, [&](long long first) {
        const unsigned own = first + 8 * lane < n ? gate[first / 8 + lane] : 0;
        real values[TURNS];
        load(grad, first, n, values);
#pragma unroll
        for (int j = 0; j < TURNS; j++) {
            const unsigned byte = __shfl_sync(ALL, own, 4 * j + lane / 8);
            values[j] = byte >> lane % 8 & 1 ? values[j] : 0;
        }
        store(values, dx, first, n);
    });
}
