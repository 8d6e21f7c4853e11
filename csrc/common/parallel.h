// Loops over torch's threads, and over the types that a kernel has variants for.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "common/subnormals.h"
#include "common/view.h"

namespace pixelkernels {

// body(A()) for the accumulation type A of the elements.
template <class Body>
void with_value(Element element, const Body& body) {
  if (element == Element::kDouble)
    body(double());
  else
    body(float());
}

// body(begin, end) for ranges that cover [0, n), each of at least `grain`, with subnormal numbers
// as 0.
template <class Body>
void parallel_ranges(int64_t n, int64_t grain, const Body& body) {
  // Inside another loop that runs on one thread, this one may start torch's threads, which inherit
  // the mode of the thread that starts them.
  const SubnormalsAsZero::Lifted lifted;
  torch::stable::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) {
    const SubnormalsAsZero mode;
    body(begin, end);
  });
}

// The least range of a thread, if each i touches `work` elements.
inline int64_t grain_of(int64_t work) { return work >= 32768 ? 1 : 32768 / (work + 1) + 1; }

// body(i) for i in [0, n), on as many threads as `work`, the elements touched per i, repays.
template <class Body>
void parallel(int64_t n, int64_t work, const Body& body) {
  parallel_ranges(n, grain_of(work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace pixelkernels
