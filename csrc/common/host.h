// What the host code of every family's CPU operators needs: outputs, threads, instruction sets.
#pragma once

#include <initializer_list>

#include "common/tensor.h"

namespace pixelkernels {

// The best instruction set that this machine has and PIXELKERNELS_CPU_CAPABILITY (baseline, avx2,
// avx512, amx) allows. With kAmx the kernels are those of avx512, their products made on AMX.
enum class Capability { kBaseline, kAvx2, kAvx512, kAmx };
Capability cpu_capability();
const char* cpu_capability_name();

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

// body(L()) for the type L of the labels, which are there.
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

// body(A()) for the type A that sums of the elements have.
template <class Body>
void with_value(Element element, const Body& body) {
  if (element == Element::kDouble)
    body(double());
  else
    body(float());
}

// body(i) for i in [0, n), on as many threads as `work` (elements touched for each i) is worth.
template <class Body>
void parallel(int64_t n, int64_t work, const Body& body) {
  const int64_t grain = work >= 32768 ? 1 : 32768 / (work + 1) + 1;
  torch::stable::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace pixelkernels
