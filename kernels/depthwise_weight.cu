// The weight's gradient of a depthwise convolution, the CUDA reading of `weight_along_taps` in
// depthwise.py; with x and dy changed over, that of learned up-sampling.
//
//     dw[r, s, c] = Σ_{n, p, q} x[n, p·stride + r·dilation − padding, …, c] · dy[n, p, q, c]
//
// A block sums part blockIdx.y of the products: parts[blockIdx.y, r, s, c]. The parts are added
// afterwards, in their order.
#include "staging.cuh"

// Any windows: each tap reads its pixels where they lie. The parts are of the rows of dy.
extern "C" __global__ void depthwise_weight(const real* __restrict__ x,
                                            const real* __restrict__ dy,
                                            real* __restrict__ parts, long long n, int h, int w,
                                            int c, int out_h, int out_w, int kernel_h, int kernel_w,
                                            int stride_h, int stride_w, int padding_h,
                                            int padding_w, int dilation_h, int dilation_w) {
    const long long lines = n * out_h, share = (lines + gridDim.y - 1) / gridDim.y;
    const long long first = blockIdx.y * share, last = first + share < lines ? first + share : lines;
    const int count = kernel_h * kernel_w * c;
    for (int e = blockIdx.x * blockDim.x + threadIdx.x; e < count; e += gridDim.x * blockDim.x) {
        const int tap = e / c, k = e - tap * c, r = tap / kernel_w, s = tap - r * kernel_w;
        double sum = 0;
        for (long long line = first; line < last; line++) {
            const int a = int(line % out_h) * stride_h + r * dilation_h - padding_h;
            if (a < 0 || a >= h) continue;
            const real* pixels = x + (line / out_h * h + a) * w * c + k;
            const real* slopes = dy + line * out_w * c + k;
            real of_row = 0;
            for (int q = 0; q < out_w; q++) {
                const int b = q * stride_w + s * dilation_w - padding_w;
                if (b >= 0 && b < w) of_row += pixels[(long long)b * c] * slopes[(long long)q * c];
            }
            sum += of_row;
        }
        parts[(long long)blockIdx.y * count + e] = (real)sum;
    }
}


// Without dilation, every pixel of x is read once. Rows a of x of one *phase* f,
// a + padding = f + u·stride, meet the taps r = f + m·stride, with row p = u − m of dy: a block has
// ``phases`` of them (blockIdx.x says which), and those taps' sums lie in shared memory. It goes down
// x in strips ``wide`` pixels broad and ``tall`` periods long. For each u come the phases' rows of x
// and one more row of dy, in the place of the one that is met no more.
extern "C" __global__ void depthwise_weight_staged(
    const real* __restrict__ x, const real* __restrict__ dy, real* __restrict__ parts, long long n,
    int h, int w, int c, int out_h, int out_w, int kernel_h, int kernel_w, int stride_h,
    int stride_w, int padding_h, int padding_w, int phases, int tall, int wide, int deep) {
    extern __shared__ real sums[];
    const int f = blockIdx.x * phases, here = min(phases, min(stride_h, kernel_h) - f);
    const int slots = (kernel_h + stride_h - 1) / stride_h;  // taps of a phase, at most
    const int channel = blockIdx.z * deep, channels = min(deep, c - channel);
    const int taps = kernel_w * channels, of_phase = slots * taps;
    const int columns = (wide + kernel_w - 2) / stride_w + 1;  // of dy that a strip meets, at most
    real *slopes = sums + here * of_phase, *pixels = slopes + slots * columns * channels;

    // sum (f, m, s, k) is one thread's, from the first row to the last
    for (int e = threadIdx.x; e < here * taps; e += blockDim.x)
        for (int m = 0; m < slots; m++) sums[e / taps * of_phase + m * taps + e % taps] = 0;

    const int periods = out_h + slots - 1;
    const long long strips = Tile::count(n, periods, w, 1, tall, wide, 1);
    for (long long t = blockIdx.y; t < strips; t += gridDim.y) {
        const Tile strip(t, periods, w, 1, tall, wide, 1);
        const real* image = x + strip.image * h * w * c;
        const real* gradient = dy + strip.image * out_h * out_w * c;
        const int reach = strip.left + padding_w - kernel_w + 1;
        const int low = reach > 0 ? (reach + stride_w - 1) / stride_w : 0;
        const int high = max(min((strip.right - 1 + padding_w) / stride_w + 1, out_w), low);
        const int line = (high - low) * channels, row = (strip.right - strip.left) * channels;

        for (int u = strip.top - slots + 1; u < strip.bottom; u++) {
            if (u >= 0 && u < out_h)
                stage(slopes + u % slots * line, gradient, out_w, c, u, u + 1, low, high, channel,
                      channels);
            if (u < strip.top) continue;
            const int above = u * stride_h + f - padding_h, top = min(max(above, 0), h);
            stage(pixels, image, w, c, top, max(min(above + here, h), top), strip.left, strip.right,
                  channel, channels);
            __syncthreads();
            for (int e = threadIdx.x; e < here * taps; e += blockDim.x) {
                const int i = e / taps, s = (e - i * taps) / channels;
                const int k = e - i * taps - s * channels, a = above + i;
                if (a < 0 || a >= h) continue;
                // columns of dy whose pixel lies in the strip
                const int from = strip.left + padding_w - s, to = strip.right + padding_w - s;
                const int first = max(low, from > 0 ? (from + stride_w - 1) / stride_w : 0);
                const int last = to > 0 ? min(high, (to - 1) / stride_w + 1) : 0;
                const real* values = pixels + (a - top) * row - from * channels + k;
                for (int m = 0; m < slots && f + i + m * stride_h < kernel_h; m++) {
                    const int p = u - m;
                    if (p < 0 || p >= out_h) continue;
                    const real* along = slopes + p % slots * line - low * channels + k;
                    real sum = 0;
                    for (int q = first; q < last; q++)
                        sum += values[q * stride_w * channels] * along[q * channels];
                    sums[i * of_phase + m * taps + e - i * taps] += sum;
                }
            }
            __syncthreads();  // the next rows take the place
        }
    }

    for (int e = threadIdx.x; e < here * taps; e += blockDim.x) {
        const int i = e / taps, s = (e - i * taps) / channels, k = e - i * taps - s * channels;
        for (int m = 0, r = f + i; r < kernel_h; m++, r += stride_h) {
            const long long tap = ((long long)blockIdx.y * kernel_h + r) * kernel_w + s;
            parts[tap * c + channel + k] = sums[i * of_phase + m * taps + e - i * taps];
        }
    }
}

// sums[e] = Σ over the parts.
extern "C" __global__ void add_parts(const real* __restrict__ parts, real* __restrict__ sums,
                                     int count, int size) {
    for (int e = blockIdx.x * blockDim.x + threadIdx.x; e < size; e += gridDim.x * blockDim.x) {
        double sum = 0;
        for (int i = 0; i < count; i++) sum += parts[(long long)i * size + e];
        sums[e] = (real)sum;
    }
}
