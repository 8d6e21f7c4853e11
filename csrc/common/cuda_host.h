// What the host code of the CUDA operators needs from torch's stable ABI: views, outputs, the
// stream.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <vector>

#include "common/cuda.cuh"

namespace pixelkernels {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Element element_of(const Tensor& features) {
  switch (features.scalar_type()) {
    case ScalarType::Half:
      return Element::kHalf;
    case ScalarType::BFloat16:
      return Element::kBFloat16;
    case ScalarType::Float:
      return Element::kFloat;
    default:
      STD_TORCH_CHECK(false,
                      "pixelkernels: the CUDA kernels take float16, bfloat16 and float32 features");
  }
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

// A [B, C, H, W] tensor, with rows that follow each other without a gap joined into one.
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

// float32 or int64 values of an argument whose layout the schema fixes.
template <class T>
T* data(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.is_contiguous(), "pixelkernels: expected a contiguous tensor");
  STD_TORCH_CHECK(tensor.element_size() == sizeof(T), "pixelkernels: unexpected dtype");
  return static_cast<T*>(tensor.data_ptr());
}

// The current stream of a tensor's device, that device made current, and the workspaces of one
// operator call. Freed workspaces go back to torch's allocator, which hands them out again in the
// order of the stream.
class Call {
 public:
  explicit Call(const Tensor& tensor) : like_(tensor), guard_(tensor.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    device.index = tensor.get_device_index();
    device.stream = static_cast<cudaStream_t>(stream);
    device.allocate = [this](int64_t bytes) {
      workspaces_.push_back(output({bytes}, ScalarType::Byte));
      return workspaces_.back().data_ptr();
    };
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  Tensor output(std::initializer_list<int64_t> shape, ScalarType type = ScalarType::Float) const {
    return torch::stable::new_empty(like_, {shape.begin(), shape.size()}, type);
  }

  Device device;

 private:
  Tensor like_;
  torch::stable::accelerator::DeviceGuard guard_;
  std::vector<Tensor> workspaces_;
};

}  // namespace pixelkernels
