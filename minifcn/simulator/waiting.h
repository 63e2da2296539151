// Threads that wait for each other: at a barrier, or for the lanes of their warp.
#pragma once
#include "block.h"

namespace block {

void Block::report(Kind kind, int t, long long detail, int other_line) {
    Fault fault{};
    fault.kind = kind;
    fault.file = threads[t].file, fault.line = threads[t].line;
    fault.offset = detail, fault.other_line = other_line;
    memcpy(fault.thread, &threads[t].index, sizeof fault.thread);
    memcpy(fault.block, &simulated_thread.blockIdx, sizeof fault.block);
    faults::add(fault);
}

// __syncthreads(): all threads of the block must come, and to the same one.
bool Block::release_barrier() {
    int first = -1, waiting = 0, elsewhere = -1;
    for (int t = 0; t < (int)threads.size(); t++) {
        if (threads[t].state != at_barrier) continue;
        waiting++;
        if (first < 0) first = t;
        if (threads[t].line != threads[first].line) elsewhere = t;
    }
    if (!waiting || waiting < live) return false;
    if (elsewhere >= 0)
        report(Kind::barrier_lines, elsewhere, 0, threads[first].line);
    else if (live < (int)threads.size())
        report(Kind::barrier_exited, first, (long long)threads.size() - live, 0);
    barriers++;
    for (auto& thread : threads)
        if (thread.state == at_barrier) thread.state = ready, thread.warp_clock = 0;
    return true;
}

// Warp operations of which every lane that the mask names has come.
bool Block::release_warps() {
    bool any = false;
    int count = (int)threads.size();
    for (int first = 0; first < count && !aborted; first += 32)
        for (int lane = 0; lane < 32 && first + lane < count && !aborted; lane++)
            if (threads[first + lane].state == in_warp) any |= release_lanes(first, lane);
    return any;
}

bool Block::release_lanes(int first, int lane) {
    Thread& caller = threads[first + lane];
    unsigned mask = caller.operation.mask;
    auto stop = [&](Kind kind, int detail) {
        report(kind, first + lane, detail, 0);
        aborted = true;
        return false;
    };
    if (!(mask >> lane & 1)) return stop(Kind::lane_outside_mask, lane);
    uint64_t sent[32] = {}, ballot = 0;
    uint16_t clock = 0;
    for (int l = 0; l < 32; l++) {
        if (!(mask >> l & 1)) continue;
        if (first + l >= (int)threads.size() || threads[first + l].state == finished)
            return stop(Kind::lane_missing, l);
        Thread& other = threads[first + l];
        if (other.state != in_warp || other.line != caller.line || other.operation.mask != mask)
            return false;
        sent[l] = other.operation.value;
        ballot |= (uint64_t)(sent[l] != 0) << l;
        clock = std::max(clock, other.warp_clock);
    }
    for (int l = 0; l < 32; l++) {
        if (!(mask >> l & 1)) continue;
        Thread& thread = threads[first + l];
        Operation& o = thread.operation;
        int start = l & ~(o.width - 1), end = start + o.width, from = l;
        switch (o.what) {
            case Exchange::index: from = start + (o.lane & (o.width - 1)); break;
            case Exchange::up: from = l - o.lane < start ? l : l - o.lane; break;
            case Exchange::down: from = l + o.lane >= end ? l : l + o.lane; break;
            case Exchange::across: from = (l ^ o.lane) >= end ? l : l ^ o.lane; break;
            default: break;
        }
        if (!(mask >> from & 1)) report(Kind::shuffle_outside_mask, first + l, from, 0);
        o.value = o.what == Exchange::ballot ? ballot : sent[from];
        thread.warp_clock = clock + 1;
        thread.state = ready;
    }
    return true;
}

// Nobody can go on: some wait at a barrier, others for their warp.
void Block::deadlock() {
    for (int t = 0; t < (int)threads.size(); t++)
        if (threads[t].state == in_warp || threads[t].state == at_barrier) {
            int other = 0;
            for (auto& thread : threads)
                if (thread.state != finished && thread.line != threads[t].line) other = thread.line;
            report(Kind::deadlock, t, 0, other);
            break;
        }
    aborted = true;
}

}  // namespace block
