// Faults: the bare facts; faults.py words them.
#pragma once
#include "machine.h"
#include <vector>

enum class Kind : int {
    out_of_bounds, misaligned, uninitialised, race, barrier_lines, barrier_exited, deadlock,
    lane_outside_mask, lane_missing, shuffle_outside_mask, overflow, shift, division, index,
};

// 0 shared memory, 1 + i the i-th buffer, -1 neither
struct Fault {
    Kind kind;
    int space, size, written;        // of the access
    long long offset;                // in its buffer
    unsigned long long code, other_code;  // addresses in the program, 0 where file and line are known
    const char* file;
    int line, other_line;
    unsigned thread[3], block[3];
    int other_thread, other_written, count;
    long long this_block, other_block;
    char text[96];
};

namespace faults {

const size_t KEPT = 32;

STATE static std::vector<Fault>* list;

inline std::vector<Fault>& found() {
    if (!list) list = new std::vector<Fault>;
    return *list;
}

// One of each kind and place is enough to read.
inline void add(const Fault& fault) {
    for (auto& known : found())
        if (known.kind == fault.kind && known.code == fault.code && known.line == fault.line &&
            known.space == fault.space) {
            known.count++;
            return;
        }
    if (found().size() < KEPT) {
        found().push_back(fault);
        found().back().count = 1;
    }
}

}  // namespace faults
