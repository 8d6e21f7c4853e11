// Which accesses to memory are ordered: what the scheduler knows and the race detector asks.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

// Where a thread stands. Threads of a block are ordered by its barriers, lanes of a warp also by
// __syncwarp, blocks of a launch not at all. Phases count the barriers that a thread has passed.
struct Position {
  uint32_t launch, block, thread;
  uint32_t block_phase, warp_phase;

  uint32_t warp() const { return thread / 32; }
};

extern Position* position;  // of the thread that runs; null outside of kernels

// Shared memory, which every block has anew, and the stacks of the fibers, which are private.
struct Range {
  const char *begin, *end;
  bool contains(const void* at) const { return at >= begin && at < end; }
};
extern Range shared_memory, stacks;

enum class Access { kRead, kWrite, kAtomic };
// Reports a race of this access with an earlier one; does nothing in other variants.
void record(const void* at, size_t bytes, Access access);

}  // namespace emulator
