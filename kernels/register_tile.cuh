// A matrix product in tiles, under every convolution: what one block of 128 threads computes of
//
//     c[m, n] = Σ_k a[k, m] · b[k, n]            128 rows m, 64 columns n
//
// Each element of a meets 64 columns and each of b 128 rows, so both are read once from device
// memory into shared memory, 8 values of k at a time, and from there into registers: a thread owns
// 8 × 8 of c, and the 16 numbers that it reads serve 64 multiplications.
//
//     a block: 4 warps, one below the other     a warp: 4 × 8 lanes (0 1 2 … 7 in its first row),
//     ┌─────────── 64 ──────────┐               each with a piece of 4 × 4 in each quarter
//     │ warp 0           32     │               ┌───────────── 32 ┬────────────── 64
//     │ warp 1                  │               │ 0  1  2 …  7    │ 0  1  2 …  7
//     │ warp 2                  │               │ 8  9 10 … 15    │ 8  9 10 … 15
//     │ warp 3                  │               │ …               │ …
//     └─────────────────────────┘            16 ├─────────────────┼───────────────
//                                               │ 0  1  2 …  7    │ 0  1  2 …  7
//
// A lane reads 16 bytes at a time: eight neighbours 128 contiguous bytes of b, one of each bank of
// shared memory; four 64 of a. (float64 has pieces of 2 × 2, twice as many.)
//
// There are two tiles in shared memory: while one is multiplied the next is on its way, first from
// device memory to registers, then from there to the other tile. One barrier a step is enough.
//
// Every sum runs over k in ascending order, in one thread: same bits each run, for any grid.
//
// Source: Nath, Tomov and Dongarra, "An improved MAGMA GEMM for Fermi GPUs", 2010.
#include "vector.cuh"

constexpr int OWN_ROWS = sizeof(real) == 4 ? 8 : 4, OWN_COLUMNS = 8;  // of c, a thread's
constexpr int THREADS = 128, LANES_DOWN = 4, LANES_ACROSS = 8;
constexpr int TALL = THREADS / LANES_ACROSS * OWN_ROWS, WIDE = LANES_ACROSS * OWN_COLUMNS;
constexpr int DEPTH = 8;
constexpr int BLOCKS = 2;  // at once on a processor, at least: 255 registers a thread

using Own = real[OWN_ROWS][OWN_COLUMNS];

// A row is VECTOR longer than the tile: so those who store transposed, a vector of k for each of
// some rows m, meet different banks too.
constexpr int A_ROW = TALL + VECTOR, B_ROW = WIDE + VECTOR;
constexpr int A_LOADS = TALL * DEPTH / VECTOR / THREADS, B_LOADS = WIDE * DEPTH / VECTOR / THREADS;

// Shared memory is laid out by what its contents ask for: of plain numbers that is their own size,
// and beside other variables 16 bytes could not be read at once.
struct alignas(16) Tiles {
    real a[2][DEPTH][A_ROW], b[2][DEPTH][B_ROW];
};

__device__ __forceinline__ Vector load_vector(const real* from) {
    return *reinterpret_cast<const Vector*>(from);
}

__device__ __forceinline__ void store_vector(real* to, const Vector& v) {
    *reinterpret_cast<Vector*>(to) = v;
}

// The number (high, middle, low) of which low counts to ``lows`` and middle to ``middles``: a pixel
// as (image, row, column), or a row of the weights as (tap row, tap column, channel).
struct Counter {
    int high, middle, low;

    __device__ __forceinline__ void advance(int count, int middles, int lows) {
        low += count;
        if (low < lows) return;
        middle += low / lows;
        low %= lows;
        if (middle < middles) return;
        high += middle / middles;
        middle %= middles;
    }
};

__device__ __forceinline__ Counter counter(long long number, int middles, int lows) {
    long long rest = number / lows;
    return {int(rest / middles), int(rest % middles), int(number % lows)};
}

// The first row and column of c that this thread owns; the others follow in pieces of VECTOR.
__device__ __forceinline__ int own_row(int i) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int piece = i / VECTOR * LANES_DOWN + lane / LANES_ACROSS;
    return warp * OWN_ROWS * LANES_DOWN + piece * VECTOR + i % VECTOR;
}

__device__ __forceinline__ int own_column(int j) {
    return (j / VECTOR * LANES_ACROSS + threadIdx.x % LANES_ACROSS) * VECTOR + j % VECTOR;
}

__device__ __forceinline__ void multiply(
    const real (&a)[DEPTH][A_ROW], const real (&b)[DEPTH][B_ROW], Own& c) {
    int row = own_row(0), column = own_column(0);
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
        Vector u[OWN_ROWS / VECTOR], v[OWN_COLUMNS / VECTOR];
#pragma unroll
        for (int i = 0; i < OWN_ROWS; i += VECTOR)
            u[i / VECTOR] = load_vector(&a[k][row + i * LANES_DOWN]);
#pragma unroll
        for (int j = 0; j < OWN_COLUMNS; j += VECTOR)
            v[j / VECTOR] = load_vector(&b[k][column + j * LANES_ACROSS]);
#pragma unroll
        for (int i = 0; i < OWN_ROWS; ++i)
#pragma unroll
            for (int j = 0; j < OWN_COLUMNS; ++j)
                c[i][j] += u[i / VECTOR].at[i % VECTOR] * v[j / VECTOR].at[j % VECTOR];
    }
}

// c += a · b over ``steps`` times DEPTH values of k. ``Left`` and ``Right`` each load their next
// piece of a or b into registers, and store it in a tile.
template <class Left, class Right>
__device__ __forceinline__ void accumulate(
    Tiles& tiles, Left& left, Right& right, int steps, Own& c) {
    if (steps == 0) return;
    left.load();
    right.load();
    left.store(tiles.a[0]);
    right.store(tiles.b[0]);
    __syncthreads();
    for (int step = 0; step < steps; ++step) {
        int now = step % 2;
        bool more = step + 1 < steps;
        if (more) {
            left.load();
            right.load();
        }
        multiply(tiles.a[now], tiles.b[now], c);
        if (more) {
            left.store(tiles.a[1 - now]);
            right.store(tiles.b[1 - now]);
        }
        __syncthreads();
    }
}

// b[k, n] from ``rows`` rows k of a matrix in device memory, of whose columns ``width`` are wanted.
// Beyond them are zeros. Where 16 bytes cannot be read at once, neighbours read single elements, and
// these go straight to the tile.
struct Rows {
    const real* from;  // this thread's next element
    long long row_size, rows_left;
    int width, row, column;  // of the matrix, from here on; and where this thread is in the tile
    bool vectors;
    Vector held[B_LOADS];

    static constexpr int ACROSS = WIDE / VECTOR, STEP = THREADS / ACROSS;

    __device__ __forceinline__ Rows(
        const real* matrix, long long row_size, long long rows, int width)
        : row_size(row_size) {
        vectors = row_size % VECTOR == 0 && width % VECTOR == 0 && is_aligned(matrix);
        row = threadIdx.x / (vectors ? ACROSS : WIDE);
        column = vectors ? threadIdx.x % ACROSS * VECTOR : threadIdx.x % WIDE;
        from = matrix + row * row_size + column;
        rows_left = rows - row;
        this->width = width - column;
    }

    __device__ __forceinline__ void load() {
        if (!vectors) return;
#pragma unroll
        for (int i = 0; i < B_LOADS; ++i)
            held[i] = i * STEP < rows_left && width > 0 ? load_vector(from + i * STEP * row_size)
                                                        : Vector{};
        advance();
    }

    __device__ __forceinline__ void store(real (&b)[DEPTH][B_ROW]) {
        if (vectors) {
#pragma unroll
            for (int i = 0; i < B_LOADS; ++i) store_vector(&b[row + i * STEP][column], held[i]);
            return;
        }
#pragma unroll
        for (int k = 0; k < DEPTH; k += THREADS / WIDE)
            b[row + k][column] = k < rows_left && width > 0 ? from[k * row_size] : real(0);
        advance();
    }

    __device__ __forceinline__ void advance() {
        from += DEPTH * row_size;
        rows_left -= DEPTH;
    }
};
