// What batch normalisation computes once a channel, the CUDA reading of channel_rates.py: a thread
// a channel, in double as there; what the passes over the pixels read is rounded to real.

#define EACH_CHANNEL(i)                                                                        \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < c;                \
         i += (long long)gridDim.x * blockDim.x)

extern "C" __global__ void rates(const double* __restrict__ mean,
                                 const double* __restrict__ variance,
                                 const real* __restrict__ weight, const real* __restrict__ bias,
                                 double eps, double* rate, real* scale, real* shift, long long c) {
    EACH_CHANNEL(i) {
        const double r = 1 / sqrt(variance[i] + eps), s = weight[i] * r;
        rate[i] = r;
        scale[i] = real(s);
        shift[i] = real(bias[i] - mean[i] * s);
    }
}

extern "C" __global__ void follow(real* running, const double* __restrict__ value, double momentum,
                                  double factor, long long c) {
    EACH_CHANNEL(i) running[i] += real(momentum * (value[i] * factor - running[i]));
}

extern "C" __global__ void slopes(const double* __restrict__ sums,
                                  const double* __restrict__ products,
                                  const double* __restrict__ mean, const double* __restrict__ rate,
                                  const real* __restrict__ weight, long long m, real* d_weight,
                                  real* d_bias, real* slope, real* constant, long long c) {
    EACH_CHANNEL(i) {
        const double scale = weight[i] * rate[i], dw = products[i] * rate[i];
        const double s = -scale * dw * rate[i] / m;
        d_weight[i] = real(dw);
        d_bias[i] = real(sums[i]);
        slope[i] = real(s);
        constant[i] = real(-scale * sums[i] / m - s * mean[i]);
    }
}
