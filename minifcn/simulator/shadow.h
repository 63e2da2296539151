// Shadow memory: beside each element, who wrote it last and who read it last.
//
// Two accesses of one element race if one of them writes and nothing orders them. Ordered are: the
// accesses of one thread; of one block across a __syncthreads(); of one warp across a warp operation
// that both took part in. Blocks are never ordered. A warp operation sets the clock of its lanes
// to one more than the latest of them (Lamport's clock), so that what is ordered is never reported.
#pragma once
#include <stdint.h>

namespace shadow {

enum Span : uint8_t { one_thread, lanes_of_a_warp, several_warps, several_blocks };

struct Access {
    uint32_t block1;      // number of the block plus one; 0: nobody yet
    uint32_t barrier;     // barriers that the block had passed
    uint32_t code;        // where in the program
    uint16_t warp_clock;  // warp operations since that barrier
    uint16_t thread : 12, span : 4;
};

struct Cell { Access write, read; };

// Whether `before` happens before what `now` does.
inline bool ordered(const Access& before, const Access& now) {
    if (!before.block1) return true;
    if (before.block1 != now.block1 || before.span == several_blocks) return false;
    if (before.barrier < now.barrier) return true;
    if (before.span == several_warps) return false;
    if (before.span == one_thread && before.thread == now.thread) return true;
    return before.thread / 32 == now.thread / 32 && before.warp_clock < now.warp_clock;
}

// Remember a read beside the earlier ones that a later write must also wait for.
inline void add_read(Access& reads, const Access& now) {
    bool blocks = reads.block1 && reads.block1 != now.block1;
    if (blocks || (reads.block1 && reads.span == several_blocks)) {
        reads = now;
        reads.span = several_blocks;
    } else if (ordered(reads, now)) {
        reads = now;
    } else {
        bool same_warp = reads.thread / 32 == now.thread / 32 && reads.span != several_warps;
        uint16_t clock = reads.warp_clock > now.warp_clock ? reads.warp_clock : now.warp_clock;
        reads = now;
        reads.warp_clock = clock;
        reads.span = same_warp ? lanes_of_a_warp : several_warps;
    }
}

enum Race { none, with_a_write, with_a_read };

// What `now` races with, if anything (then `other` is it); and remember `now`.
inline Race visit(Cell& cell, const Access& now, bool writes, Access& other) {
    Race race = !ordered(cell.write, now)             ? with_a_write
                : writes && !ordered(cell.read, now) ? with_a_read
                                                     : none;
    if (race) other = race == with_a_write ? cell.write : cell.read;
    if (writes)
        cell.write = now;
    else
        add_read(cell.read, now);
    return race;
}

}  // namespace shadow
