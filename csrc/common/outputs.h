// Tensors of the CPU operators: their dtypes and data, and their outputs.
#pragma once

#include <initializer_list>

#include "common/tensor.h"

namespace pixelkernels {

Element element_of(const Tensor& features);
ScalarType accumulate_type(Element element);

// Uninitialised outputs. Filling a fresh tensor costs four times as much through 4 KiB pages, most
// of it in faults, one for each page. So large outputs come from memory of freed ones where there
// is some: a training step frees a gradient right before the next one asks for as much. What is
// kept is lent to the system, which takes its pages back when they are short. Fresh memory asks for
// huge pages; but on virtual machines that hand free pages back to their host a huge page is most
// often one that the host has to supply again, and there the small ones are asked for, many at a
// time.
Tensor output(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type);
Tensor output_like(const Tensor& like);
// One whose parts are each made `ready` by who writes them, right before: so they are in the cache.
Tensor unready_like(const Tensor& like);
void ready(const void* data, int64_t bytes);
// Whether an output is so large that it is better written past the caches.
bool past_caches(const Tensor& output);
// Nothing is kept any longer.
void release_memory();

template <class T = void>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

}  // namespace pixelkernels
