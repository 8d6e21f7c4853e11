// As much of CUDA's language and runtime as the kernels use, on the emulator.
#pragma once

#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "emulator.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())
inline const emulator::Index& blockDim = emulator::block_size;

struct dim3 : emulator::Index {
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : Index{x, y, z} {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

// ---- runtime ----

using cudaStream_t = void*;
using cudaError_t = const char*;  // the message
constexpr cudaError_t cudaSuccess = nullptr;
inline const char* cudaGetErrorString(cudaError_t error) { return error; }

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? emulator::device().multiprocessors
                                                       : emulator::device().shared_memory;
  return cudaSuccess;
}

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
  if (bytes > emulator::device().shared_memory) return "more shared memory than a block may have";
  emulator::permit_shared(kernel, bytes);
  return cudaSuccess;
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const std::tuple<std::decay_t<Parameters>...> values(std::forward<Arguments>(arguments)...);
  const emulator::Launch launch = {reinterpret_cast<const void*>(kernel), config->gridDim,
                                   config->blockDim, config->dynamicSmemBytes};
  return emulator::launch(launch, [&] { std::apply(kernel, values); });
}

// ---- barriers and collectives ----

inline void __syncthreads() { emulator::meet_block(); }
inline void __syncwarp(unsigned mask = ~0u) { emulator::meet_warp("__syncwarp", mask, 0, true); }

template <class To, class From>
inline To bits_as(From from) {
  To to = {};
  memcpy(&to, &from, std::min(sizeof to, sizeof from));
  return to;
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane) {
  const auto& all = emulator::meet_warp("__shfl_sync", mask, bits_as<uint64_t>(value), false);
  return bits_as<T>(all.values[lane & 31]);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int apart) {
  const unsigned lane = emulator::lane() ^ apart;
  const auto& all = emulator::meet_warp("__shfl_xor_sync", mask, bits_as<uint64_t>(value), false);
  return bits_as<T>(all.values[lane & 31]);
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
  const auto& all = emulator::meet_warp("__ballot_sync", mask, vote != 0, false);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i) votes |= (all.present >> i & 1 && all.values[i] ? 1u : 0u) << i;
  return votes;
}
inline int __all_sync(unsigned mask, int vote) {
  const auto& all = emulator::meet_warp("__all_sync", mask, vote != 0, false);
  for (int i = 0; i < 32; ++i)
    if (all.present >> i & 1 && !all.values[i]) return 0;
  return 1;
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value) {
  const auto& all = emulator::meet_warp("__reduce_min_sync", mask, value, false);
  uint64_t least = ~0u;
  for (int i = 0; i < 32; ++i)
    if (all.present >> i & 1) least = std::min(least, all.values[i]);
  return static_cast<unsigned>(least);
}

// ---- memory and arithmetic ----

inline int atomicAdd(int* to, int value) { return __atomic_fetch_add(to, value, __ATOMIC_RELAXED); }
template <class T>
inline T __ldg(const T* from) {
  return *from;
}
template <class T>
inline T __ldcs(const T* from) {
  return *from;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return bits_as<long long>(x); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
