// Random permutations of 0 ... n - 1 whose elements are computed one by one, so that a few of them
// need no pass over n: a Feistel network on the smallest power of two >= max(n, 256), with cycle
// walking until the result is below n. Torch-free.
#pragma once

#include <cstdint>

#include "common/hash.h"

// Compiled for several instruction sets, of which the loader takes the best. Integer results are
// the same in all.
#if defined(__x86_64__) && defined(__gnu_linux__)
#define PK_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define PK_CLONES
#endif

namespace pixelkernels {

class Permutation {
 public:
  // `set` numbers the permutations of one seed; n < 2^31
  Permutation(uint64_t seed, uint64_t set, int64_t n) : n_(static_cast<uint32_t>(n)) {
    int bits = 8;
    while (bits < 31 && (uint64_t{1} << bits) < static_cast<uint64_t>(n)) ++bits;
    steps_.right_bits = bits - bits / 2;
    steps_.left_mask = (uint32_t{1} << bits / 2) - 1;
    steps_.right_mask = (uint32_t{1} << steps_.right_bits) - 1;
    for (uint64_t i = 0; i < kKeys; ++i) steps_.keys[i] = key(seed, set * kKeys + i + 1);
  }

  // body(i, element i) for i in [0, count), count <= n. Elements that land outside walk on in a
  // batch.
  template <class Body>
  void first(int64_t count, const Body& body) const {
    uint32_t landed[kBatch], walking[kBatch], slot[kBatch];
    for (int64_t begin = 0; begin < count; begin += kBatch) {
      const int some = count - begin < kBatch ? static_cast<int>(count - begin) : kBatch;
      for (int i = 0; i < some; ++i) {
        walking[i] = static_cast<uint32_t>(begin) + i;
        slot[i] = i;
      }
      for (int left = some; left > 0;) {
        step(steps_, walking, left);
        int outside = 0;
        for (int i = 0; i < left; ++i) {
          landed[slot[i]] = walking[i];
          slot[outside] = slot[i];
          walking[outside] = walking[i];
          outside += walking[i] >= n_;
        }
        left = outside;
      }
      for (int i = 0; i < some; ++i) body(begin + i, landed[i]);
    }
  }

 private:
  static constexpr int kKeys = 8, kBatch = 256;

  struct Steps {
    uint32_t left_mask, right_mask, keys[kKeys];
    int right_bits;
  };

  // values[i] = its image, for i in [0, count)
  PK_CLONES static void step(const Steps& s, uint32_t* values, int count) {
    for (int i = 0; i < count; ++i) {
      uint32_t left = values[i] >> s.right_bits, right = values[i] & s.right_mask;
      for (int round = 0; round < kKeys; round += 2) {
        right ^= mix(s.keys[round], left) & s.right_mask;
        left ^= mix(s.keys[round + 1], right) & s.left_mask;
      }
      values[i] = left << s.right_bits | right;
    }
  }

  // element number `i` of the splitmix64 sequence that starts at the seed
  static uint32_t key(uint64_t seed, uint64_t i) {
    uint64_t z = seed + 0x9E3779B97F4A7C15u * i;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<uint32_t>(z ^ (z >> 31));
  }

  uint32_t n_;
  Steps steps_;
};

}  // namespace pixelkernels
