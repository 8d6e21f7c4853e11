// Plain descriptions of tensors, shared by the host code and by the kernels of every instruction
// set.
#pragma once

#include <cstdint>

namespace pixelkernels {

enum class Element : int32_t { kHalf, kBFloat16, kFloat, kDouble };
constexpr int kElements = 4;

enum class Label : int32_t { kUInt8, kInt8, kInt16, kInt32, kInt64, kNone };

// body(L()) for the type L of the labels, which are not null.
template <class Body>
auto with_label(Label label, const Body& body) {
  switch (label) {
    case Label::kUInt8:
      return body(uint8_t());
    case Label::kInt8:
      return body(int8_t());
    case Label::kInt16:
      return body(int16_t());
    case Label::kInt32:
      return body(int32_t());
    default:
      return body(int64_t());
  }
}

// A [B, C, H, W] tensor with any strides, in elements. If rows are adjacent, row_length is H*W, so
// pixel i is always at (i / row_length) * row_stride + (i % row_length) * pixel_stride.
struct View {
  void* data;
  int64_t batch_stride, channel_stride, row_stride, pixel_stride, row_length;
};

}  // namespace pixelkernels
