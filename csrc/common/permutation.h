// Random permutations of 0 ... n - 1 whose elements are computed one by one, so that a few of them
// cost no pass over n: a Feistel network on the smallest power of two that holds n (256 at least),
// walked from where it lands until it lands below n. Torch-free.
#pragma once

#include <cstdint>

namespace pixelkernels {

class Permutation {
 public:
  // `set` tells apart the permutations that are drawn with one seed; n < 2^31
  Permutation(uint64_t seed, uint64_t set, int64_t n) : n_(static_cast<uint32_t>(n)) {
    int bits = 8;
    while (bits < 31 && (uint64_t{1} << bits) < static_cast<uint64_t>(n)) ++bits;
    right_bits_ = bits - bits / 2;
    left_mask_ = (uint32_t{1} << bits / 2) - 1;
    right_mask_ = (uint32_t{1} << right_bits_) - 1;
    for (uint64_t i = 0; i < kKeys; ++i) keys_[i] = key(seed, set * kKeys + i + 1);
  }

  // body(i, element i) for i in [0, count), count <= n. Some at a time, so that the steps of one
  // hide those of another; those that land outside walk on.
  template <class Body>
  void first(int64_t count, const Body& body) const {
    constexpr int64_t kTogether = 64;
    uint32_t landed[kTogether];
    for (int64_t begin = 0; begin < count; begin += kTogether) {
      const int64_t some = count - begin < kTogether ? count - begin : kTogether;
      for (int64_t i = 0; i < some; ++i) landed[i] = step(static_cast<uint32_t>(begin + i));
      for (int64_t i = 0; i < some; ++i) {
        while (landed[i] >= n_) landed[i] = step(landed[i]);
        body(begin + i, landed[i]);
      }
    }
  }

 private:
  static constexpr int kKeys = 8;

  uint32_t step(uint32_t i) const {
    uint32_t left = i >> right_bits_, right = i & right_mask_;
    for (int round = 0; round < kKeys; round += 2) {
      right ^= mix(keys_[round], left) & right_mask_;
      left ^= mix(keys_[round + 1], right) & left_mask_;
    }
    return left << right_bits_ | right;
  }

  // element number `i` of the splitmix64 sequence that starts at the seed
  static uint32_t key(uint64_t seed, uint64_t i) {
    uint64_t z = seed + 0x9E3779B97F4A7C15u * i;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<uint32_t>(z ^ (z >> 31));
  }
  // the finaliser of MurmurHash3
  static uint32_t mix(uint32_t key, uint32_t value) {
    uint32_t h = value * 0x9E3779B1u + key;
    h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
    h = (h ^ (h >> 13)) * 0xC2B2AE35u;
    return h ^ (h >> 16);
  }

  uint32_t n_, left_mask_, right_mask_, keys_[kKeys];
  int right_bits_;
};

}  // namespace pixelkernels
