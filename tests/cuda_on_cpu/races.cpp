// Finds data races: two accesses to the same memory by threads that nothing orders, one of them a
// write. GCC's -fsanitize=thread calls a function for every access; those are defined here instead
// of in libtsan, whose vector clocks take minutes for the 1024 threads of a block. For each byte of
// memory, a cell knows the last write and who has read since.
#include <array>
#include <memory>
#include <unordered_map>

#include "include/emulator.h"
#include "order.h"

namespace emulator {
namespace {

constexpr uint32_t kSeveral = ~0u;

struct Cell {
  Position writer = {};  // launch 0: none
  bool atomic = false;
  // The last reader; its block is kSeveral if others have read too. In its phase, several warps may
  // have read, or several lanes of its warp.
  Position reader = {};
  bool several_lanes = false, several_warps = false;
};

constexpr int kPageBits = 12, kCellBytes = 1;
using Page = std::array<Cell, (1 << kPageBits) / kCellBytes>;
constexpr size_t kMostPages = 4096;
std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;

Page& page_of(uintptr_t number) {
  static uintptr_t last_number = 0;
  static Page* last = nullptr;
  if (last && number == last_number) return *last;
  if (pages.size() > kMostPages) pages.clear();
  auto& found = pages[number];
  if (!found) found = std::make_unique<Page>();
  last_number = number;
  return *(last = found.get());
}

// Whether `earlier`, of the same launch, happens before the running thread's next access.
bool ordered(const Position& earlier, bool shared) {
  const Position& now = *position;
  if (earlier.block != now.block) return shared;  // another block's shared memory
  if (earlier.thread == now.thread || earlier.block_phase < now.block_phase) return true;
  return earlier.warp() == now.warp() && earlier.warp_phase < now.warp_phase;
}

bool readers_ordered(const Cell& cell, bool shared) {
  const Position &reader = cell.reader, &now = *position;
  if (reader.block == kSeveral) return false;
  if (reader.block != now.block) return shared;
  if (reader.block_phase < now.block_phase) return true;
  if (cell.several_warps || reader.warp() != now.warp()) return false;
  return reader.warp_phase < now.warp_phase || (!cell.several_lanes && reader.thread == now.thread);
}

void add_reader(Cell& cell, bool shared) {
  Position& reader = cell.reader;
  const Position& now = *position;
  const bool other_block = reader.block != now.block;
  if (reader.launch == now.launch && other_block && !shared) {
    reader.block = kSeveral;
  } else if (reader.launch != now.launch || other_block || reader.block_phase < now.block_phase) {
    cell.several_warps = cell.several_lanes = false;
    reader = now;
  } else if (reader.warp() != now.warp()) {
    cell.several_warps = true;
  } else if (reader.warp_phase < now.warp_phase) {
    cell.several_lanes = false;
    reader = now;
  } else if (reader.thread != now.thread) {
    cell.several_lanes = true;
  }
}

void check(Cell& cell, const char* at, Access access) {
  const bool shared = shared_memory.contains(at);
  const Position& now = *position;
  const auto report = [&](const char* before, const char* after, const Position& other) {
    fail("race in %s memory: block %u, thread %u %s what block %d, thread %u has %s",
         shared ? "shared" : "global", now.block, now.thread, after, static_cast<int>(other.block),
         other.thread, before);
  };
  const bool both_atomic = access == Access::kAtomic && cell.atomic;
  if (cell.writer.launch == now.launch && !both_atomic && !ordered(cell.writer, shared))
    report("written", access == Access::kRead ? "reads" : "writes", cell.writer);
  if (access == Access::kRead) return add_reader(cell, shared);
  if (cell.reader.launch == now.launch && !readers_ordered(cell, shared))
    report("read", "writes", cell.reader);
  cell.writer = now;
  cell.atomic = access == Access::kAtomic;
  cell.reader.launch = 0;
}

}  // namespace

void record(const void* at, size_t bytes, Access access) {
  if (!position || stacks.contains(at)) return;
  const auto first = reinterpret_cast<uintptr_t>(at) & ~uintptr_t{kCellBytes - 1};
  for (uintptr_t i = first; i < reinterpret_cast<uintptr_t>(at) + bytes; i += kCellBytes)
    check(page_of(i >> kPageBits)[(i & ((1 << kPageBits) - 1)) / kCellBytes],
          reinterpret_cast<const char*>(i), access);
}

}  // namespace emulator

using emulator::Access;
using emulator::record;

#define ACCESSES(size)                                                            \
  void __tsan_read##size(void* at) { record(at, size, Access::kRead); }           \
  void __tsan_write##size(void* at) { record(at, size, Access::kWrite); }         \
  void __tsan_unaligned_read##size(void* at) { record(at, size, Access::kRead); } \
  void __tsan_unaligned_write##size(void* at) { record(at, size, Access::kWrite); }

extern "C" {
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void* at, size_t bytes) { record(at, bytes, Access::kRead); }
void __tsan_write_range(void* at, size_t bytes) { record(at, bytes, Access::kWrite); }
int __tsan_atomic32_fetch_add(int* at, int value, int) {
  record(at, sizeof *at, Access::kAtomic);
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
int __tsan_atomic32_load(const int* at, int) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
char __tsan_atomic8_load(const char* at, int) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void**) {}
void __tsan_vptr_update(void**, void*) {}
}
