// A GPU on one CPU core: every CUDA thread is a fiber, and blocks run one after another, in random
// order. Fibers switch at barriers and at the collectives of a warp.
//
// What CUDA leaves undefined fails or is poison here: a deadlock, lanes in different collectives,
// shared memory never written, a value from a lane that has ended. `launch` returns an error then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace emulator {

constexpr int kLanes = 32;
constexpr uint32_t kPoison = 0x7fa5a5a5;  // NaN, or a large integer

struct Index {
  unsigned x, y, z;
};

struct Device {
  int multiprocessors, shared_memory;  // bytes that a block may opt in to
};
const Device& device();

struct Launch {
  const void* kernel;
  Index grid, block;
  size_t shared_bytes;  // dynamic
};

// Permits a kernel more dynamic shared memory than the default.
void permit_shared(const void* kernel, int bytes);
// Runs `body` once for every thread. Returns what went wrong, or null.
const char* launch(const Launch& launch, const std::function<void()>& body);

// ---- for the thread that runs ----

extern Index block_size;
Index thread_index();
Index block_index();
unsigned lane();
void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

void* dynamic_shared();
// The block's variable of this number.
void* shared_variable(int number, size_t bytes);

void meet_block();
// What the lanes of a warp gave to a collective.
struct Exchange {
  uint64_t values[kLanes];
  unsigned present;  // lanes that have not ended
};
const Exchange& meet_warp(const char* collective, unsigned mask, uint64_t value,
                          bool orders_memory);

// Asynchronous copies happen when they are issued or when their group is waited for, at random.
void copy_later(void* to, const void* from, size_t bytes);
void commit_copies();
void wait_for_copies(size_t groups_left);

}  // namespace emulator
