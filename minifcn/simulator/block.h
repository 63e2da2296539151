// A block of threads, run by one processor: threads in some order, each until it has to wait.
//
// A fiber starts one thread after another in a plain loop. Only when a thread waits, at a barrier or
// for its warp, does it keep the fiber, and another one goes on. So a kernel that never waits costs
// a call a thread and nothing more.
#pragma once
#include "faults.h"
#include "fibers.h"
#include <algorithm>
#include <random>
#include <string.h>
#include <vector>

namespace block {

enum State : char { unstarted, ready, at_barrier, in_warp, finished };

// What a thread waits with for the other lanes of its warp.
struct Operation {
    Exchange what;
    unsigned mask;
    uint64_t value;
    int lane, width;
};

struct Thread {
    State state;
    fibers::Fiber* fiber;
    uint3 index;
    uint16_t warp_clock;
    const char* file;
    int line;
    Operation operation;
};

struct Block {
    std::vector<Thread> threads;
    std::vector<int> order;
    std::vector<fibers::Fiber*> all, idle;
    std::mt19937 random;
    bool shuffled = false, aborted = false;
    int next = 0, live = 0, current = 0;
    uint32_t barriers = 0;
    fibers::Place outside;
    void (*kernel)(void**) = nullptr;
    void** arguments = nullptr;

    Thread& now() { return threads[current]; }

    // order: 0 ascending, 1 descending, 2 and more: shuffled by that seed
    void prepare(const unsigned size[3], int order_seed) {
        int count = size[0] * size[1] * size[2];
        threads.assign(count, Thread{});
        order.resize(count);
        for (int t = 0; t < count; t++) {
            threads[t].index = {t % size[0], t / size[0] % size[1], t / size[0] / size[1]};
            order[t] = order_seed == 1 ? count - 1 - t : t;
        }
        shuffled = order_seed > 1;
        random.seed(order_seed);
        aborted = false;
    }

    void run(void (*body)()) {
        for (auto& thread : threads) thread.state = unstarted, thread.warp_clock = 0;
        next = 0, live = (int)threads.size(), barriers = 0;
        while (live && !aborted) {
            if (shuffled && (next == 0 || next == (int)threads.size()))
                std::shuffle(order.begin(), order.end(), random);
            bool moved = false;
            while (next < (int)threads.size() && !aborted) start_threads(body), moved = true;
            for (size_t i = 0; i < order.size() && !aborted; i++)
                if (threads[order[i]].state == ready) resume(order[i]), moved = true;
            if (live && !aborted && !release_warps() && !release_barrier() && !moved) deadlock();
        }
        if (aborted)  // what they were in the middle of is lost
            for (auto* fiber : all)
                if (!fiber->idle) fiber->restart(body), idle.push_back(fiber);
    }

    void start_threads(void (*body)()) {
        if (idle.empty()) all.push_back(new fibers::Fiber(all.size(), body)), idle.push_back(all.back());
        fibers::Fiber* fiber = idle.back();
        idle.pop_back();
        fiber->idle = false;
        enter(fiber);
    }
    void resume(int t) {
        current = t;
        threads[t].state = unstarted;  // running; it says itself what it waits for next
        simulated_thread.threadIdx = threads[t].index;
        enter(threads[t].fiber);
    }
    void enter(fibers::Fiber* fiber) {
        fibers::change_fiber(&outside, &fiber->place);
        if (fiber->idle) idle.push_back(fiber);
    }

    // On a fiber: run threads until one waits; then it goes on here when it is resumed.
    void work() {
        fibers::Fiber* here = fiber_of_now();
        for (;;) {
            while (next < (int)threads.size() && !aborted) {
                current = order[next++];
                Thread& thread = now();
                thread.fiber = here;
                simulated_thread.threadIdx = thread.index;
                kernel(arguments);
                threads[current].state = finished;
                live--;
            }
            here->idle = true;
            fibers::change_fiber(&here->place, &outside);
        }
    }
    fibers::Fiber* fiber_of_now() {
        char here;
        for (auto* fiber : all)
            if (fiber->holds(&here)) return fiber;
        return nullptr;
    }

    void wait(State state, const char* file, int line) {
        Thread& thread = now();
        thread.state = state, thread.file = file, thread.line = line;
        fibers::change_fiber(&thread.fiber->place, &outside);
    }
    // The running thread must not go on, nor any other.
    void abort() {
        aborted = true;
        fibers::change_fiber(&now().fiber->place, &outside);
    }

    bool release_barrier();
    bool release_warps();
    bool release_lanes(int first, int lane);
    void deadlock();
    void report(Kind kind, int t, long long detail, int other_line);
};

}  // namespace block
