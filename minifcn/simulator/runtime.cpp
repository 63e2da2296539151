// The simulated machine: runs the blocks of a launch, and in a checked build watches each access.
//
// Compiled once and linked into every kernel file.
#include "machine.h"
#include "block.h"
#include "hooks.h"
#include "memory.h"
#include "waiting.h"
#include <stdio.h>

#define FOR_PYTHON extern "C" __attribute__((visibility("default")))

STATE BuiltIns simulated_thread;
STATE static block::Block* running;
STATE static memory::Memory* watched;
STATE static bool checking;
STATE static long long block_number;
STATE static uint32_t counted_barriers;
STATE static std::vector<char>* dynamic;
STATE static char* dynamic_start;
extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[];

static void body() { running->work(); }

void simulated_barrier(const char* file, int line) {
    running->wait(block::at_barrier, file, line);
}

uint64_t simulated_exchange(Exchange what, unsigned mask, uint64_t value, int lane, int width,
                            const char* file, int line) {
    running->now().operation = {what, mask, value, lane, width};
    running->wait(block::in_warp, file, line);
    return running->now().operation.value;
}

void* simulated_dynamic_shared_memory() { return dynamic_start; }

static Fault fault_here() {
    Fault fault{};
    memcpy(fault.thread, &running->now().index, sizeof fault.thread);
    memcpy(fault.block, &simulated_thread.blockIdx, sizeof fault.block);
    fault.this_block = block_number;
    return fault;
}

void before_access(const void* address, int size, bool writes, void* code) {
    if (!checking || running->now().fiber->holds((const char*)address)) return;
    if (counted_barriers != running->barriers) {  // lanes meet anew behind a barrier
        watched->traffic.finish();
        counted_barriers = running->barriers;
    }
    block::Thread& thread = running->now();
    shadow::Access now{(uint32_t)block_number + 1, running->barriers,
                       (uint32_t)((char*)code - __ehdr_start), thread.warp_clock,
                       (uint16_t)running->current, shadow::one_thread};
    Fault fault = fault_here();
    fault.code = now.code;
    if (!watched->visit((const char*)address, size, writes, now, fault)) running->abort();
}

void arithmetic_fault(int kind, const SourceLocation& where, const TypeDescriptor* type,
                      uint64_t left, uint64_t right, const char* sign) {
    if (!checking) return;
    Fault fault = fault_here();
    fault.kind = Kind((int)Kind::overflow + (kind == 1 ? 1 : kind == 2 ? 2 : kind == 3 ? 3 : 0));
    fault.file = where.file, fault.line = where.line;
    auto value = [&](uint64_t bits) {
        return type->kind == 0 && type->info >> 1 <= 5 ? (long long)(int)bits : (long long)bits;
    };
    if (kind == 3)
        snprintf(fault.text, sizeof fault.text, "index %lld of %s", (long long)(int)left, type->name);
    else
        snprintf(fault.text, sizeof fault.text, "%lld %s %lld in %s", value(left), sign,
                 value(right), type->name);
    faults::add(fault);
    if (kind == 2) running->abort();  // a division by zero would end the process
}

struct Launch {
    void (*kernel)(void**);
    void** arguments;
    unsigned grid[3], block[3];
    unsigned long long dynamic_bytes;
    int order, checked, shared_element, buffer_count;
    long long first, last;  // blocks
    memory::Buffer* buffers;
    char* image[3];
};

// Run the blocks [first, last) of a launch. Returns the number of different faults.
FOR_PYTHON int simulated_launch(Launch* launch) {
    if (!running) {
        running = new block::Block;
        watched = new memory::Memory;
        dynamic = new std::vector<char>;
    }
    faults::found().clear();
    checking = false;
    auto* grid = launch->grid;
    simulated_thread.gridDim = {grid[0], grid[1], grid[2]};
    simulated_thread.blockDim = {launch->block[0], launch->block[1], launch->block[2]};
    dynamic->resize(launch->dynamic_bytes + 256);
    dynamic_start = (char*)(((uintptr_t)dynamic->data() + 127) & ~(uintptr_t)127);
    running->prepare(launch->block, launch->order);
    running->kernel = launch->kernel, running->arguments = launch->arguments;
    char* shared[2] = {launch->image[1], launch->image[2]};
    char* added[2] = {dynamic_start, dynamic_start + launch->dynamic_bytes};
    watched->constants_start = launch->image[0], watched->constants_end = launch->image[1];
    if (launch->checked) {
        watched->traffic.start((int)running->threads.size());
        watched->open(launch->buffers, launch->buffer_count, shared, added, launch->shared_element);
    }
    for (long long i = launch->first; i < launch->last && !running->aborted; i++) {
        long long b = launch->order == 1 ? launch->last - 1 - (i - launch->first) : i;
        block_number = b;
        simulated_thread.blockIdx = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]),
                                     unsigned(b / grid[0] / grid[1])};
        if (launch->checked) {
            memset(shared[0], 0xff, shared[1] - shared[0]);
            memset(added[0], 0xff, added[1] - added[0]);
            watched->start_block();
        }
        checking = launch->checked, counted_barriers = 0;
        running->run(body);
        checking = false;
        if (launch->checked) watched->traffic.finish();
    }
    if (launch->checked) watched->close();
    return (int)faults::found().size();
}

FOR_PYTHON int simulated_faults(Fault* out) {
    std::copy(faults::found().begin(), faults::found().end(), out);
    return (int)faults::found().size();
}

FOR_PYTHON int simulated_sites(traffic::Site* out, int room) {
    auto& found = watched->traffic.instructions;
    for (int i = 0; i < (int)found.size() && i < room; i++) out[i] = found[i].site;
    return (int)found.size();
}
