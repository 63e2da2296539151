// Traffic: what the memory accesses of one warp cost together.
//
// The lanes of a warp run one instruction at the same time. Global memory comes in sectors of 32
// bytes: a request costs the number of different sectors that its lanes touch. Shared memory has 32
// banks, word w in bank w mod 32: a request passes once for each different word that its busiest
// bank holds; accesses of 8 and 16 bytes go by half and quarter warps.
//
// Here each lane runs alone, so the n-th time that a lane comes to an instruction is put together
// with the n-th time of the others, counted from the last barrier.
#pragma once
#include "machine.h"
#include <algorithm>
#include <unordered_map>
#include <vector>

namespace traffic {

const int SECTOR = 32, LANES = 32, BANKS = 32, WORD = 4;

struct Request {
    long long offset[LANES];
    uint32_t lanes = 0;
};

// One instruction: where it is, what it moves, and its counts so far.
struct Site {
    unsigned long long code;
    int space, size, writes;
    unsigned long long requests, bytes, sectors, used, passes, conflicts;
};

struct Instruction {
    Site site;
    std::vector<uint32_t> times;                 // a thread
    std::vector<std::vector<Request>> requests;  // a warp
};

struct Counter {
    std::vector<Instruction> instructions;
    std::unordered_map<uint64_t, int> number;
    uint64_t last_key = ~0ull;
    int last_number = 0, threads = 0;

    void start(int block_size) {
        instructions.clear();
        number.clear();
        last_key = ~0ull;
        threads = block_size;
    }

    void add(int thread, unsigned code, int space, long long offset, int size, bool writes) {
        uint64_t key = (uint64_t)code << 16 | (uint64_t)(space & 0xff) << 8 | size << 1 | writes;
        if (key != last_key) {
            auto [place, is_new] = number.try_emplace(key, (int)instructions.size());
            if (is_new) {
                Site site{code, space, size, writes, 0, 0, 0, 0, 0, 0};
                instructions.push_back({site, std::vector<uint32_t>(threads),
                                        std::vector<std::vector<Request>>((threads + 31) / 32)});
            }
            last_key = key;
            last_number = place->second;
        }
        Instruction& here = instructions[last_number];
        auto& requests = here.requests[thread / LANES];
        uint32_t time = here.times[thread]++;
        if (time >= requests.size()) requests.resize(time + 1);
        requests[time].offset[thread % LANES] = offset;
        requests[time].lanes |= 1u << thread % LANES;
    }

    // At a barrier and at a block's end: count what came together.
    void finish() {
        for (auto& here : instructions) {
            for (auto& warp : here.requests) {
                for (auto& request : warp) count(here.site, request);
                warp.clear();
            }
            std::fill(here.times.begin(), here.times.end(), 0);
        }
    }

    static void count(Site& site, const Request& request) {
        site.requests++;
        site.bytes += (unsigned long long)site.size * __builtin_popcount(request.lanes);
        if (site.space == 0)
            count_passes(site, request);
        else
            count_sectors(site, request);
    }

    static void count_sectors(Site& site, const Request& request) {
        long long sector[LANES * 2];
        uint32_t touched[LANES * 2];  // which bytes of it
        int n = 0;
        for (int lane = 0; lane < LANES; lane++) {
            if (!(request.lanes >> lane & 1)) continue;
            for (long long a = request.offset[lane], end = a + site.size; a < end;) {
                long long here = a / SECTOR, stop = std::min(end, (here + 1) * SECTOR);
                uint32_t bytes = (uint32_t)(((1ull << (stop - a)) - 1) << a % SECTOR);
                int i = n - 1;
                while (i >= 0 && sector[i] != here) i--;
                if (i < 0) i = n++, sector[i] = here, touched[i] = 0;
                touched[i] |= bytes;
                a = stop;
            }
        }
        site.sectors += n;
        for (int i = 0; i < n; i++) site.used += __builtin_popcount(touched[i]);
    }

    static void count_passes(Site& site, const Request& request) {
        int together = site.size <= WORD ? LANES : LANES * WORD / site.size;
        for (int first = 0; first < LANES; first += together) {
            long long words[LANES];
            int in_bank[BANKS] = {}, n = 0, most = 0;
            for (int lane = first; lane < first + together; lane++) {
                if (!(request.lanes >> lane & 1)) continue;
                long long word = request.offset[lane] / WORD;
                long long last = (request.offset[lane] + site.size - 1) / WORD;
                for (; word <= last; word++)
                    if (std::find(words, words + n, word) == words + n && n < LANES) {
                        words[n++] = word;
                        most = std::max(most, ++in_bank[word % BANKS]);
                    }
            }
            site.passes += most;
            site.conflicts += std::max(most - 1, 0);
        }
    }
};

}  // namespace traffic
