#include "include/emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "order.h"

#if !defined(__x86_64__)
#error "the switch between fibers is written for x86-64"
#endif

#if defined(ASAN)
extern "C" void __asan_poison_memory_region(const volatile void*, size_t);
extern "C" void __asan_unpoison_memory_region(const volatile void*, size_t);
#endif

// Saves the registers that a function keeps, and the stack, in *from; continues where `to` stopped.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch, .-emulator_switch
)");

namespace emulator {
namespace {

constexpr int kMostThreads = 1024;
constexpr size_t kStack = 128 * 1024, kGuard = 4096;
// What shared memory holds at first: NaN would hide a value that is only compared, 1 hides in sums.
constexpr uint32_t kPoisons[] = {kPoison, 0x3f800000};
constexpr size_t kDefaultShared = 48 * 1024, kArena = 512 * 1024, kGap = 64;

enum class State { kReady, kAtBlock, kAtWarp, kDone };

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  unsigned group;
};

struct Thread {
  char* stack = nullptr;
  void* stack_pointer = nullptr;
  State state = State::kDone;
  Index index = {};
  Position position = {};
  // of a collective
  const char* collective = nullptr;
  uint64_t value = 0;
  std::vector<Copy> copies;  // that have not happened yet
  unsigned groups = 0;       // committed
};

struct Block {
  Index index = {};
  int count = 0, warps = 0;
  uint32_t poison = kPoison;
  void* dynamic = nullptr;
  std::vector<std::pair<int, void*>> variables;
  size_t static_bytes = 0;
  std::vector<Exchange> exchanges;
};

std::mutex mutex;
uint64_t random_state = 1;
uint32_t launches = 0;
std::map<const void*, int> permitted;
std::string failure;
const std::function<void()>* kernel_body = nullptr;
Block block;
std::vector<Thread> threads;
Thread* current = nullptr;
void* scheduler = nullptr;
char* arena_end = nullptr;  // of the block's shared memory

char* mapped(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) abort();
  return static_cast<char*>(memory);
}

uint32_t random_number() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return static_cast<uint32_t>(random_state >> 32);
}

void clear_shared() {
  arena_end = const_cast<char*>(shared_memory.begin);
#if defined(ASAN)
  __asan_poison_memory_region(arena_end, kArena);
#endif
}

// Shared memory, poisoned, with a gap behind it.
void* allocate_shared(size_t bytes) {
  char* const memory = arena_end;
  arena_end += (bytes + kGap + 15) / 16 * 16;
  if (arena_end > shared_memory.end) abort();
#if defined(ASAN)
  __asan_unpoison_memory_region(memory, bytes);
#endif
  for (size_t i = 0; i < bytes; ++i) memory[i] = static_cast<char>(block.poison >> 8 * (i % 4));
  return memory;
}

void to_scheduler(State state) {
  current->state = state;
  emulator_switch(&current->stack_pointer, scheduler);
}

void run_threads() {
  for (;;) {
    (*kernel_body)();
    if (!current->copies.empty()) fail("a thread ended before its asynchronous copies");
    current->copies.clear();
    to_scheduler(State::kDone);
  }
}

void begin_fiber(Thread& thread) {
  thread.copies.clear();
  // six registers, then the address that emulator_switch returns to, then that of no caller
  void** top = reinterpret_cast<void**>(thread.stack + kGuard + kStack) - 8;
  top[6] = reinterpret_cast<void*>(run_threads);
  thread.stack_pointer = top;
}

void create_threads() {
  char* memory = mapped(kMostThreads * (kGuard + kStack));
  stacks = {memory, memory + kMostThreads * (kGuard + kStack)};
  threads.resize(kMostThreads);
  for (Thread& thread : threads) {
    thread.stack = memory;
    memory += kGuard + kStack;
    if (mprotect(thread.stack, kGuard, PROT_NONE)) abort();
    begin_fiber(thread);
  }
  memory = mapped(kArena);
  shared_memory = {memory, memory + kArena};
}

void resume(Thread& thread) {
  current = &thread;
  position = &thread.position;
  emulator_switch(&scheduler, thread.stack_pointer);
  position = nullptr;
}

bool any_ready(int warp) {
  for (int t = warp * kLanes; t < std::min((warp + 1) * kLanes, block.count); ++t)
    if (threads[t].state == State::kReady) return true;
  return false;
}

// A warp that can run, mostly the last one again, so that warps get far ahead of each other.
int next_warp(int last) {
  if (random_number() % 8 != 0 && any_ready(last)) return last;
  const int first = static_cast<int>(random_number() % block.warps);
  for (int i = 0; i < block.warps; ++i)
    if (any_ready((first + i) % block.warps)) return (first + i) % block.warps;
  return -1;
}

// Lets the lanes of a warp go on if all that have not ended are in its collective.
void finish_collective(int warp) {
  Exchange& all = block.exchanges[warp];
  const int begin = warp * kLanes, end = std::min(begin + kLanes, block.count);
  const char* collective = nullptr;
  for (int t = begin; t < end; ++t) {
    const Thread& thread = threads[t];
    if (thread.state == State::kDone) continue;
    if (thread.state != State::kAtWarp) return;
    if (collective && strcmp(collective, thread.collective))
      fail("lanes of a warp are in %s and in %s", collective, thread.collective);
    collective = thread.collective;
  }
  all.present = 0;
  std::fill(std::begin(all.values), std::end(all.values), uint64_t{kPoison} << 32 | kPoison);
  for (int t = begin; t < end; ++t) {
    Thread& thread = threads[t];
    if (thread.state == State::kDone) continue;
    all.values[t - begin] = thread.value;
    all.present |= 1u << (t - begin);
    thread.state = State::kReady;
  }
}

// Lets all threads go on if those that have not ended are at the barrier. Returns false if not.
bool finish_barrier() {
  bool waiting = false;
  for (int t = 0; t < block.count; ++t) {
    const State state = threads[t].state;
    if (state == State::kReady || state == State::kAtWarp) return false;
    waiting = waiting || state == State::kAtBlock;
  }
  for (int t = 0; t < block.count; ++t)
    if (threads[t].state == State::kAtBlock) threads[t].state = State::kReady;
  return waiting;
}

// Returns false if no thread could go on before all had ended.
bool run_block() {
  for (int warp = 0;;) {
    warp = next_warp(warp);
    if (warp < 0) {
      if (!finish_barrier()) break;
      warp = 0;
      continue;
    }
    const unsigned step = 2 * random_number() + 1, start = random_number();
    for (unsigned i = 0; i < kLanes; ++i) {
      const int t = warp * kLanes + static_cast<int>((start + i * step) % kLanes);
      if (t < block.count && threads[t].state == State::kReady) resume(threads[t]);
    }
    finish_collective(warp);
  }
  return std::all_of(threads.begin(), threads.begin() + block.count,
                     [](const Thread& thread) { return thread.state == State::kDone; });
}

void begin_block(unsigned index, const Launch& launch) {
  clear_shared();
  block.poison = kPoisons[random_number() % 2];
  block.index = {index, 0, 0};
  block.variables.clear();
  block.static_bytes = 0;
  block.dynamic = allocate_shared(launch.shared_bytes);
  for (int t = 0; t < block.count; ++t) {
    Thread& thread = threads[t];
    const unsigned u = t;
    thread.index = {u % launch.block.x, u / launch.block.x % launch.block.y,
                    u / launch.block.x / launch.block.y};
    thread.position = {launches, index, u, 0, 0};
    thread.state = State::kReady;
  }
}

int number_from(const char* name, int otherwise) {
  const char* value = getenv(name);
  return value ? atoi(value) : otherwise;
}

}  // namespace

// An H200, or what the environment says.
const Device& device() {
  static const Device device = {number_from("EMULATED_MULTIPROCESSORS", 132),
                                number_from("EMULATED_SHARED_MEMORY", 232448)};
  return device;
}

void permit_shared(const void* kernel, int bytes) {
  const std::lock_guard lock(mutex);
  permitted[kernel] = bytes;
}

const char* launch(const Launch& launch, const std::function<void()>& body) {
  const std::lock_guard lock(mutex);
  const unsigned count = launch.block.x * launch.block.y * launch.block.z;
  if (count < 1 || count > kMostThreads || launch.grid.x < 1 || launch.grid.y != 1 ||
      launch.grid.z != 1)
    return "invalid configuration";
  const auto found = permitted.find(launch.kernel);
  if (launch.shared_bytes > (found == permitted.end() ? kDefaultShared : found->second))
    return "more dynamic shared memory than permitted";
  const size_t most = found == permitted.end() ? kDefaultShared : device().shared_memory;

  if (threads.empty()) create_threads();
  failure.clear();
  ++launches;
  block_size = launch.block;
  kernel_body = &body;
  block.count = static_cast<int>(count);
  block.warps = (block.count + kLanes - 1) / kLanes;
  block.exchanges.resize(block.warps);
  std::vector<unsigned> order(launch.grid.x);
  for (unsigned i = 0; i < launch.grid.x; ++i) {
    const unsigned j = random_number() % (i + 1);
    order[i] = order[j];
    order[j] = i;
  }
  for (const unsigned index : order) {
    begin_block(index, launch);
    if (!run_block()) {
      fail("deadlock in block %u", index);
      for (Thread& thread : threads) begin_fiber(thread);
    }
    if (block.static_bytes + launch.shared_bytes > most)
      fail("%zu static and %zu dynamic bytes of shared memory, %zu permitted", block.static_bytes,
           launch.shared_bytes, most);
    if (!failure.empty()) return failure.c_str();
  }
  return nullptr;
}

Index block_size;
Position* position = nullptr;
Range shared_memory, stacks;
Index thread_index() { return current->index; }
Index block_index() { return block.index; }
unsigned lane() { return current->position.thread % kLanes; }

void fail(const char* format, ...) {
  if (!failure.empty()) return;  // the first one says most
  char text[256];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  failure = text;
}

void* dynamic_shared() { return block.dynamic; }

void* shared_variable(int number, size_t bytes) {
  for (const auto& [known, at] : block.variables)
    if (known == number) return at;
  block.static_bytes += bytes;
  block.variables.emplace_back(number, allocate_shared(bytes));
  return block.variables.back().second;
}

void meet_block() {
  to_scheduler(State::kAtBlock);
  ++current->position.block_phase;
  ++current->position.warp_phase;
}

const Exchange& meet_warp(const char* collective, unsigned mask, uint64_t value,
                          bool orders_memory) {
  if (mask != ~0u) fail("%s of a part of a warp, which is not emulated", collective);
  current->collective = collective;
  current->value = value;
  to_scheduler(State::kAtWarp);
  current->position.warp_phase += orders_memory;
  return block.exchanges[current->position.warp()];
}

// The race detector takes a copy for a write from its issue until the wait.
void copy_later(void* to, const void* from, size_t bytes) {
  if (bytes != 4 && bytes != 8 && bytes != 16) fail("an asynchronous copy of %zu bytes", bytes);
  if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes)
    fail("an asynchronous copy of %zu bytes is not aligned", bytes);
  record(from, bytes, Access::kRead);
  record(to, bytes, Access::kWrite);
  if (random_number() & 1)
    memcpy(to, from, bytes);
  else
    current->copies.push_back({to, from, bytes, current->groups});
}

void commit_copies() { ++current->groups; }

void wait_for_copies(size_t groups_left) {
  auto& copies = current->copies;
  auto copy = copies.begin();
  for (; copy != copies.end() && copy->group + groups_left < current->groups; ++copy) {
    record(copy->to, copy->bytes, Access::kWrite);
    memcpy(copy->to, copy->from, copy->bytes);
  }
  copies.erase(copies.begin(), copy);
}

#if !defined(RACES)
void record(const void*, size_t, Access) {}
#endif

}  // namespace emulator

// For the tests.
extern "C" __attribute__((visibility("default"))) void emulator_seed(uint64_t seed) {
  emulator::random_state = seed * 0x9e3779b97f4a7c15u | 1;
}
