// Resampling along one axis by a sparse matrix, the CUDA reading of resample.py.
//
// A block makes ``tall`` rows of the result, ``wide`` elements of each: it holds those rows of the
// matrix in shared memory for all the pictures that it goes through, and of each picture the rows
// that they meet, each read once. So up- and down-sampling are one gather.

// y (lead, n_out, inner) from x (lead, n_in, inner). The matrix by rows: row o has the elements
// first[o] … first[o + 1] − 1 of ``column`` and ``weight``; those of tile i meet the ``span`` rows of
// x from low[i] on, at most, and are ``most`` at most.
extern "C" __global__ void resample(const real* __restrict__ x, const int* __restrict__ first,
                                    const int* __restrict__ column,
                                    const real* __restrict__ weight, const int* __restrict__ low,
                                    real* __restrict__ y, long long lead, int n_in, int n_out,
                                    long long inner, int tall, int wide, int span, int most) {
    extern __shared__ real pixels[];
    real* weights = pixels + (long long)span * wide;
    int* columns = (int*)(weights + most);
    int* firsts = columns + most;

    const long long pieces = (inner + wide - 1) / wide;
    const int tile = int(blockIdx.x / pieces), top = tile * tall;
    const int rows = n_out - top < tall ? n_out - top : tall;
    const long long left = blockIdx.x % pieces * wide;
    const int width = inner - left < wide ? int(inner - left) : wide;

    const int begin = first[top], elements = first[top + rows] - begin, lowest = low[tile];
    for (int j = threadIdx.x; j < elements; j += blockDim.x) {
        columns[j] = column[begin + j] - lowest;
        weights[j] = weight[begin + j];
    }
    for (int o = threadIdx.x; o <= rows; o += blockDim.x) firsts[o] = first[top + o] - begin;

    const int seen = n_in - lowest < span ? n_in - lowest : span;
    for (long long b = blockIdx.y; b < lead; b += gridDim.y) {
        const real* source = x + (b * n_in + lowest) * inner + left;
        // a row of threads starts where a sector of 32 bytes does, so that it meets no more of them
        const int skew = int((unsigned long long)source % 32 / sizeof(real));
        for (int e = int(threadIdx.x) - skew; e < seen * width; e += blockDim.x)
            if (e >= 0) pixels[e] = source[e / width * inner + e % width];
        __syncthreads();
        real* target = y + (b * n_out + top) * inner + left;
        for (int e = threadIdx.x; e < rows * width; e += blockDim.x) {
            const int o = e / width, k = e - o * width;
            real sum = 0;
            for (int j = firsts[o]; j < firsts[o + 1]; j++)
                sum += weights[j] * pixels[columns[j] * width + k];
            target[o * inner + k] = sum;
        }
        __syncthreads();  // the next picture's rows take the place
    }
}
