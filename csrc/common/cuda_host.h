// For the host code of the CUDA operators: outputs, workspaces, the stream.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <initializer_list>
#include <vector>

#include "common/cuda.cuh"
#include "common/tensor.h"

namespace pixelkernels {

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

// float32 or int64 values of an argument whose layout the schema fixes.
template <class T>
T* data(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.is_contiguous(), "pixelkernels: expected a contiguous tensor");
  STD_TORCH_CHECK(tensor.element_size() == sizeof(T), "pixelkernels: unexpected dtype");
  return static_cast<T*>(tensor.data_ptr());
}

// Makes a tensor's device current and holds its current stream and the workspaces of one operator
// call. Freed workspaces return to torch's allocator, which reuses them in stream order.
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
