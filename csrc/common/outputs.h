// Tensors of the CPU operators: their dtypes and data, and their outputs.
#pragma once

#include "common/tensor.h"

namespace pixelkernels {

using Shape = torch::headeronly::IntHeaderOnlyArrayRef;

Element element_of(const Tensor& features);
ScalarType accumulate_type(Element element);

// Uninitialised outputs.
Tensor output(const Tensor& like, Shape shape, ScalarType type);
Tensor output_like(const Tensor& like);
// Whether an output is large enough for non-temporal stores.
bool past_caches(const Tensor& output);

template <class T = void>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

}  // namespace pixelkernels
