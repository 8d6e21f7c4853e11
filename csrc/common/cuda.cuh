// Shared by the CUDA kernels of all families: 16-byte accesses, conversions, labels, launches.
// Torch-free.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "common/view.h"

namespace pixelkernels {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr int kVectorBytes = 16;

template <class T>
constexpr int kVector = kVectorBytes / static_cast<int>(sizeof(T));

// ---- conversions ----

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ inline void from_floats(float* out, float a, float b) { out[0] = a, out[1] = b; }
__device__ inline void from_floats(__half* out, float a, float b) {
  const __half2 pair = __floats2half2_rn(a, b);
  out[0] = __low2half(pair), out[1] = __high2half(pair);
}
__device__ inline void from_floats(__nv_bfloat16* out, float a, float b) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  out[0] = __low2bfloat16(pair), out[1] = __high2bfloat16(pair);
}

// ---- one value, or the values of 16 bytes, as stored ----

template <class T, int V>
using Raw = std::conditional_t<V == 1, T, uint4>;

// Through registers: a memcpy between typed memory and a wider register would copy bytes.
template <class T, int V>
__device__ inline void unpack(Raw<T, V> raw, float (&out)[V]) {
  if constexpr (V == 1) {
    out[0] = to_float(raw);
  } else {
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
    T values[V];
    memcpy(values, words, sizeof values);
#pragma unroll
    for (int i = 0; i < V; ++i) out[i] = to_float(values[i]);
  }
}

template <class T, int V>
__device__ inline Raw<T, V> pack(const float (&in)[V]) {
  T values[V + (V & 1)];
#pragma unroll
  for (int i = 0; i < V; i += 2) from_floats(values + i, in[i], i + 1 < V ? in[i + 1] : 0.0f);
  if constexpr (V == 1) {
    return values[0];
  } else {
    unsigned words[4];
    memcpy(words, values, sizeof words);
    return uint4{words[0], words[1], words[2], words[3]};
  }
}

// ---- labels ----

template <int N, class L>
__device__ inline void load_regions_as(const void* labels, int64_t first, int64_t step, int64_t end,
                                       int regions, int (&out)[N]) {
  L label[N];
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const int64_t i = first + k * step;
    label[k] = i < end ? static_cast<const L*>(labels)[i] : L(0);
  }
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const bool inside =
        first + k * step < end && int64_t{label[k]} >= 0 && int64_t{label[k]} < regions;
    out[k] = inside ? static_cast<int>(label[k]) : -1;
  }
}

// The labels of pixels first, first + step, ... before `end`, as regions in [0, regions), or -1.
// The switch on the dtype is outside of the loop, so that all loads are in flight at once.
template <int N>
__device__ inline void load_regions(const void* labels, Label type, int64_t first, int64_t step,
                                    int64_t end, int regions, int (&out)[N]) {
  switch (type) {
    case Label::kUInt8:
      return load_regions_as<N, uint8_t>(labels, first, step, end, regions, out);
    case Label::kInt8:
      return load_regions_as<N, int8_t>(labels, first, step, end, regions, out);
    case Label::kInt16:
      return load_regions_as<N, int16_t>(labels, first, step, end, regions, out);
    case Label::kInt32:
      return load_regions_as<N, int32_t>(labels, first, step, end, regions, out);
    case Label::kInt64:
      return load_regions_as<N, int64_t>(labels, first, step, end, regions, out);
    case Label::kNone:
#pragma unroll
      for (int k = 0; k < N; ++k) out[k] = first + k * step < end ? 0 : -1;
  }
}

// ---- offsets ----

// The offset of pixel i of an image in a channel, in elements. Pixel indices fit 32 bits, offsets
// need 64.
__device__ inline int64_t pixel_offset(const View& view, int pixel, int pixels) {
  if (view.row_length >= pixels) return pixel * view.pixel_stride;
  const unsigned length = static_cast<unsigned>(view.row_length);
  const unsigned row = static_cast<unsigned>(pixel) / length;
  return row * view.row_stride + (static_cast<unsigned>(pixel) - row * length) * view.pixel_stride;
}

template <class T>
__device__ inline T* image_data(const View& view, int64_t image) {
  return static_cast<T*>(view.data) + image * view.batch_stride;
}

// Whether 16-byte accesses along the pixels (of a row) or along the channels (of a pixel) are
// aligned everywhere.
struct Alignment {
  bool pixels, channels;

  Alignment(const View& view, int64_t element_bytes, int64_t channels_, int64_t pixels_) {
    const int64_t n = kVectorBytes / element_bytes;
    const auto whole = [&](int64_t elements) { return elements % n == 0; };
    const bool base =
        reinterpret_cast<uintptr_t>(view.data) % kVectorBytes == 0 && whole(view.batch_stride);
    const bool one_row = view.row_length >= pixels_;
    const bool rows = one_row || whole(view.row_stride);
    pixels = base && view.pixel_stride == 1 && rows && whole(one_row ? pixels_ : view.row_length) &&
             (channels_ <= 1 || whole(view.channel_stride));
    channels = base && view.channel_stride == 1 && rows && whole(channels_) &&
               (pixels_ <= 1 || whole(view.pixel_stride));
  }
};

// ---- launches ----

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

inline void check(cudaError_t status) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string("pixelkernels: CUDA error: ") +
                             cudaGetErrorString(status));
}

// The stream of the kernels. `allocate` returns uninitialised device memory, 256-byte aligned,
// which lives until the operator returns.
struct Device {
  int index;
  cudaStream_t stream;
  std::function<void*(int64_t bytes)> allocate;

  template <class T>
  T* workspace(int64_t n) const {
    return static_cast<T*>(allocate(n * static_cast<int64_t>(sizeof(T))));
  }
  int multiprocessors() const { return attribute(cudaDevAttrMultiProcessorCount); }
  int shared_memory() const { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

 private:
  int attribute(cudaDeviceAttr which) const {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, index));
    return value;
  }
};

// What a block has without opting in to more, less room for the static variables of a kernel.
constexpr int64_t kDefaultShared = 47 * 1024;

// An empty grid launches nothing.
template <class... Parameters, class... Arguments>
void launch(const Device& device, void (*kernel)(Parameters...), int64_t blocks, dim3 threads,
            int64_t shared, Arguments&&... arguments) {
  if (blocks == 0) return;
  if (blocks > INT32_MAX)
    throw std::runtime_error("pixelkernels: too many elements for one launch");
  if (shared > kDefaultShared)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared)));
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = threads;
  config.dynamicSmemBytes = static_cast<size_t>(shared);
  config.stream = device.stream;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

// body(T()) for the storage type T of the features.
template <class Body>
void with_element(Element element, const Body& body) {
  switch (element) {
    case Element::kHalf:
      return body(__half());
    case Element::kBFloat16:
      return body(__nv_bfloat16());
    case Element::kFloat:
      return body(float());
    default:
      throw std::runtime_error("pixelkernels: unexpected dtype of features");
  }
}

}  // namespace pixelkernels
