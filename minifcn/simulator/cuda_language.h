// CUDA C++ as g++ can read it: stands before the unmodified text of a .cu file.
//
// A thread is an ordinary call of the kernel. Shared memory is the file's zero-initialised data
// (.bss): every __shared__ array becomes a static one, and blocks run one after another. Atomic
// functions are left out on purpose: sums go in a fixed order.
#pragma once
#include "machine.h"
#include <math.h>
#include <string.h>
#include <type_traits>
#include <utility>

#define UNCHECKED __attribute__((no_sanitize("thread", "undefined")))

// -- the words of the language -------------------------------------------------------------------
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __constant__ static
#define __shared__ static __attribute__((aligned(16)))
#define __align__(bytes) __attribute__((aligned(bytes)))

struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline double2 make_double2(double x, double y) { return {x, y}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

// -- which thread this is ------------------------------------------------------------------------
#ifdef CHECKED  // a call, so that reading a built-in variable does not count as memory traffic
namespace simulated {
UNCHECKED __attribute__((const, noinline)) static uint3 thread() { return simulated_thread.threadIdx; }
UNCHECKED __attribute__((const, noinline)) static uint3 block() { return simulated_thread.blockIdx; }
UNCHECKED __attribute__((const, noinline)) static uint3 threads() { return simulated_thread.blockDim; }
UNCHECKED __attribute__((const, noinline)) static uint3 blocks() { return simulated_thread.gridDim; }
}
#define threadIdx (simulated::thread())
#define blockIdx (simulated::block())
#define blockDim (simulated::threads())
#define gridDim (simulated::blocks())
#else
#define threadIdx (simulated_thread.threadIdx)
#define blockIdx (simulated_thread.blockIdx)
#define blockDim (simulated_thread.blockDim)
#define gridDim (simulated_thread.gridDim)
#endif
static constexpr int warpSize = 32;

// -- threads together ----------------------------------------------------------------------------
namespace simulated {
struct Line { const char* file; int number; };

template <class T>
static inline T shuffle(Line line, Exchange what, unsigned mask, T value, int lane, int width = 32) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = simulated_exchange(what, mask, bits, lane, width, line.file, line.number);
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline unsigned ballot(Line line, unsigned mask, bool yes) {
    return (unsigned)simulated_exchange(Exchange::ballot, mask, yes, 0, 32, line.file, line.number);
}
static inline void wait_for_warp(Line line, unsigned mask = ~0u) {
    simulated_exchange(Exchange::wait, mask, 0, 0, 32, line.file, line.number);
}
}
#define HERE simulated::Line{__FILE__, __LINE__}
#define __syncthreads() simulated_barrier(__FILE__, __LINE__)
#define __syncwarp(...) simulated::wait_for_warp(HERE __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_sync(...) simulated::shuffle(HERE, Exchange::index, __VA_ARGS__)
#define __shfl_up_sync(...) simulated::shuffle(HERE, Exchange::up, __VA_ARGS__)
#define __shfl_down_sync(...) simulated::shuffle(HERE, Exchange::down, __VA_ARGS__)
#define __shfl_xor_sync(...) simulated::shuffle(HERE, Exchange::across, __VA_ARGS__)
#define __ballot_sync(mask, yes) simulated::ballot(HERE, mask, yes)
#define __any_sync(mask, yes) (__ballot_sync(mask, yes) != 0)
#define __all_sync(mask, yes) (__ballot_sync(mask, !(yes)) == 0)
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)

// -- functions -----------------------------------------------------------------------------------
template <class T> static inline T __ldg(const T* p) { return *p; }

// CUDA's own overloads: of two floats the one that is a number, as fmin and fmax
#define SMALLER_AND_LARGER(T) \
    static inline T min(T a, T b) { return b < a ? b : a; } \
    static inline T max(T a, T b) { return a < b ? b : a; }
SMALLER_AND_LARGER(int)
SMALLER_AND_LARGER(unsigned)
SMALLER_AND_LARGER(long)
SMALLER_AND_LARGER(unsigned long)
SMALLER_AND_LARGER(long long)
SMALLER_AND_LARGER(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline long long min(int a, long long b) { return min((long long)a, b); }
static inline long long min(long long a, int b) { return min(a, (long long)b); }
static inline long long max(int a, long long b) { return max((long long)a, b); }
static inline long long max(long long a, int b) { return max(a, (long long)b); }

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
#define __expf expf
#define __logf logf
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float __int_as_float(int bits) { float x; memcpy(&x, &bits, 4); return x; }
static inline int __float_as_int(float x) { int bits; memcpy(&bits, &x, 4); return bits; }
static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
static inline int __clz(int bits) { return bits ? __builtin_clz(bits) : 32; }
static inline int __ffs(int bits) { return __builtin_ffs(bits); }

// -- the way in ----------------------------------------------------------------------------------
namespace simulated {
// Arguments arrive as the driver takes them: one address each, read as the parameter's type.
template <class... P, size_t... I>
UNCHECKED static void call(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
    kernel(*(std::remove_const_t<P>*)arguments[I]...);
}
template <class... P> UNCHECKED static void call(void (*kernel)(P...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<P...>{});
}
// "Pf4 pi8 i4": a pointer, a pointer to const, a value; its kind and its bytes.
template <class T> static void describe(char*& text) {
    using V = std::remove_cv_t<T>;
    if constexpr (std::is_pointer_v<V>) {
        *text++ = std::is_const_v<std::remove_pointer_t<V>> ? 'p' : 'P';
        describe<std::remove_pointer_t<V>>(text);
    } else {
        *text++ = std::is_same_v<V, bool>           ? 'b'
                  : std::is_floating_point_v<V>     ? 'f'
                  : !std::is_integral_v<V>          ? 'V'
                  : std::is_signed_v<V>             ? 'i'
                                                    : 'u';
        *text++ = '0' + sizeof(V);
        *text++ = ' ';
    }
}
template <class... P> static void describe(void (*)(P...), char* text) {
    (describe<P>(text), ...);
    *text = 0;
}
}
#define SIMULATED_KERNEL(name) \
    extern "C" UNCHECKED void simulated_run_##name(void** a) { simulated::call(&name, a); } \
    extern "C" void simulated_parameters_##name(char* text) { simulated::describe(&name, text); }

#ifdef CHECKED
extern "C" void simulated_is_checked() {}
#endif
// Where the shared memory lies, and the constants before it.
extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[], __bss_start[], _end[];
extern "C" void simulated_image(char** ends) {
    ends[0] = __ehdr_start, ends[1] = __bss_start, ends[2] = _end;
}
