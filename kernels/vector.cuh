// 16 bytes at a time, the most that one load moves: four float32 or two float64.
//
// An address that is no multiple of 16 cannot be read so. Whoever uses vectors asks `is_aligned`
// of each array, and keeps a loop over single elements for the others and for the last few.

constexpr int VECTOR = 16 / sizeof(real);  // elements of a 16-byte load

struct alignas(16) Vector {
    real at[VECTOR];
};

__device__ __forceinline__ bool is_aligned(const void* p) {
    return reinterpret_cast<unsigned long long>(p) % 16 == 0;
}
