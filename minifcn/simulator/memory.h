// Device memory as a kernel sees it: is the access allowed, ordered, of something ever written; and
// what does it move?
#pragma once
#include "faults.h"
#include "shadow.h"
#include "traffic.h"
#include <string.h>
#include <sys/mman.h>

namespace memory {

using shadow::Access;
using shadow::Cell;

// A stretch of global memory that the launch was given; filled in by Python.
struct Buffer {
    char *start, *end;
    int element;    // bytes of what races are told apart by
    int floating;   // fresh memory holds a NaN that no arithmetic makes
    unsigned long long read, written;              // different bytes: the least possible traffic
    unsigned long long moved_read, moved_written;  // 32 for each sector that a block touches
};

const int SHARED = 0;  // the number of that space; buffer i is space 1 + i

struct Space {
    char *start = nullptr, *end = nullptr;
    int element = 4, number = 0;
    Buffer* buffer = nullptr;
    Cell* cells = nullptr;       // one an element
    uint32_t* sectors = nullptr; // the last block, plus one, to read and to write each
    size_t cells_size = 0, sectors_size = 0;

    bool holds(const char* a, int size) const { return a >= start && a + size <= end; }
    size_t count() const { return (end - start + element - 1) / element; }
};

// Memory that is zero and costs nothing until it is touched.
template <class T> T* lazily(size_t count, size_t& size) {
    size = count * sizeof(T) + 4096;
    return (T*)mmap(nullptr, size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

struct Memory {
    std::vector<Space> spaces;  // static shared, dynamic shared, buffers
    size_t last = 0;
    char *constants_start, *constants_end;
    traffic::Counter traffic;

    void open(Buffer* buffers, int count, char* shared[2], char* dynamic[2], int shared_element) {
        for (char** ends : {shared, dynamic}) {
            Space space;
            space.start = ends[0], space.end = ends[1], space.element = shared_element;
            spaces.push_back(space);
        }
        for (int i = 0; i < count; i++) {
            Space space;
            space.start = buffers[i].start, space.end = buffers[i].end;
            space.element = buffers[i].element, space.number = 1 + i, space.buffer = &buffers[i];
            spaces.push_back(space);
        }
        for (auto& space : spaces) {
            space.cells = lazily<Cell>(space.count(), space.cells_size);
            space.sectors = lazily<uint32_t>(2 * ((space.end - space.start) / 32 + 1),
                                             space.sectors_size);
        }
    }
    void close() {
        for (auto& space : spaces) {
            munmap(space.cells, space.cells_size);
            munmap(space.sectors, space.sectors_size);
        }
        spaces.clear();
        last = 0;
    }
    // Shared memory lives as long as its block, and begins as nobody's.
    void start_block() {
        for (auto& space : spaces)
            if (space.number == SHARED) memset(space.cells, 0, space.count() * sizeof(Cell));
    }
    Space* find(const char* a, int size) {
        if (spaces[last].holds(a, size)) return &spaces[last];
        for (size_t i = 0; i < spaces.size(); i++)
            if (spaces[i].holds(a, size)) return last = i, &spaces[i];
        return nullptr;
    }

    // True if the access may happen.
    bool visit(const char* a, int size, bool writes, const Access& now, Fault& fault) {
        Space* space = find(a, size);
        fault.size = size, fault.written = writes;
        if (!space) {
            if (!writes && a >= constants_start && a + size <= constants_end) return true;
            return near(a, size, fault), faults::add(fault), false;
        }
        fault.space = space->number, fault.offset = a - space->start;
        if ((uintptr_t)a % size) return fault.kind = Kind::misaligned, faults::add(fault), false;
        size_t shift = space == &spaces[1] ? spaces[0].end - spaces[0].start : 0;
        traffic.add(now.thread, now.code, space->number, fault.offset + shift, size, writes);
        size_t first = fault.offset / space->element;
        size_t last_element = (fault.offset + size - 1) / space->element;
        for (size_t i = first; i <= last_element; i++) visit_cell(*space, i, writes, now, fault);
        if (space->buffer) count_sector(*space, fault.offset / 32, writes, now);
        return true;
    }
    void visit_cell(Space& space, size_t i, bool writes, const Access& now, Fault& fault) {
        Cell& cell = space.cells[i];
        if (!writes && is_fresh(space, cell, i)) {
            fault.kind = Kind::uninitialised;
            faults::add(fault);
        }
        if (Buffer* b = space.buffer) {
            if (writes && !cell.write.block1) b->written += space.element;
            if (!writes && !cell.read.block1 && !cell.write.block1) b->read += space.element;
        }
        Access other;
        if (shadow::Race race = shadow::visit(cell, now, writes, other)) {
            fault.kind = Kind::race;
            fault.other_code = other.code, fault.other_thread = other.thread;
            fault.other_block = (long long)other.block1 - 1;
            fault.other_written = race == shadow::with_a_write;
            faults::add(fault);
        }
    }
    bool is_fresh(const Space& space, const Cell& cell, size_t i) {
        if (cell.write.block1) return false;
        if (!space.buffer) return true;
        const char* value = space.start + i * space.element;
        if (space.element == 4) {
            uint32_t bits;
            memcpy(&bits, value, 4);
            return bits == (space.buffer->floating ? 0xffffffffu : 0xcbcbcbcbu);
        }
        if (space.element == 8) {
            uint64_t bits;
            memcpy(&bits, value, 8);
            return bits == (space.buffer->floating ? ~0ull : 0xcbcbcbcbcbcbcbcbull);
        }
        return false;  // any value of one or two bytes may be meant
    }
    // What a block touches again comes from its cache: each sector counts once a block.
    void count_sector(Space& space, size_t sector, bool writes, const Access& now) {
        uint32_t& block1 = space.sectors[2 * sector + writes];
        if (block1 == now.block1) return;
        block1 = now.block1;
        (writes ? space.buffer->moved_written : space.buffer->moved_read) += 32;
    }
    // Which buffer did it miss? The nearest, for the reader's sake.
    void near(const char* a, int size, Fault& fault) {
        fault.kind = Kind::out_of_bounds, fault.space = -1, fault.offset = (long long)a;
        long long nearest = 1 << 20;
        for (auto& space : spaces) {
            if (space.start == space.end) continue;
            long long away = a < space.start ? space.start - a : a + size - space.end;
            if (away < nearest) {
                nearest = away, fault.space = space.number, fault.offset = a - space.start;
            }
        }
    }
};

}  // namespace memory
