// Hashes of 32 bits. Torch-free, and inlined into the kernels of every instruction set.
#pragma once

#include <cstdint>

namespace pixelkernels {

// the finaliser of MurmurHash3
__attribute__((always_inline)) inline uint32_t mix(uint32_t key, uint32_t value) {
  uint32_t h = value * 0x9E3779B1u + key;
  h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
  h = (h ^ (h >> 13)) * 0xC2B2AE35u;
  return h ^ (h >> 16);
}

}  // namespace pixelkernels
