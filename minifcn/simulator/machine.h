// What a compiled kernel asks of the machine it runs on; cuda_language.h calls it, runtime.cpp is it.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct uint3 { unsigned x, y, z; };

// The four built-in variables of the thread that runs now.
struct BuiltIns { uint3 threadIdx, blockIdx, blockDim, gridDim; };

// What the lanes of a warp do together.
enum class Exchange : int { index, up, down, across, ballot, wait };

// Hidden: each compiled kernel file carries a machine of its own.
#define OF_THIS_FILE extern "C" __attribute__((visibility("hidden")))

// The machine's own variables keep out of .bss, which is the kernels' shared memory.
#define STATE __attribute__((section("machine_state")))

OF_THIS_FILE BuiltIns simulated_thread;
OF_THIS_FILE void simulated_barrier(const char* file, int line);
OF_THIS_FILE uint64_t simulated_exchange(Exchange what, unsigned mask, uint64_t value, int lane,
                                         int width, const char* file, int line);
OF_THIS_FILE void* simulated_dynamic_shared_memory();
