// Tensors of torch's stable ABI, as the host code of CPU and CUDA operators reads them.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <sstream>
#include <stdexcept>

#include "common/view.h"

namespace pixelkernels {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Raises ValueError in Python, because pybind11 translates this exception.
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

inline Label label_of(const Tensor& labels) {
  STD_TORCH_CHECK(labels.is_contiguous(), "pixelkernels: labels must be contiguous");
  switch (labels.scalar_type()) {
    case ScalarType::Bool:
    case ScalarType::Byte:
      return Label::kUInt8;
    case ScalarType::Char:
      return Label::kInt8;
    case ScalarType::Short:
      return Label::kInt16;
    case ScalarType::Int:
      return Label::kInt32;
    case ScalarType::Long:
      return Label::kInt64;
    default:
      STD_TORCH_CHECK(false, "pixelkernels: unexpected dtype of labels");
  }
}

// A [B, C, H, W] tensor; adjacent rows are joined into one.
inline View view_of(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.dim() == 4, "pixelkernels: features must be [B, C, H, W]");
  const int64_t rows = tensor.size(2), columns = tensor.size(3);
  View view{tensor.data_ptr(), tensor.stride(0), tensor.stride(1),
            tensor.stride(2),  tensor.stride(3), columns};
  if (columns <= 1 && rows > 1) {
    view.pixel_stride = view.row_stride;
    view.row_length = rows;
  } else if (rows <= 1 || view.row_stride == columns * view.pixel_stride) {
    view.row_length = rows * columns;
  }
  if (view.row_length < 1) view.row_length = 1;
  return view;
}

}  // namespace pixelkernels
