// The similarity kernels of one instruction set.
#include "similarity/simd/contrast.h"
#include "similarity/simd/gradient.h"
#include "similarity/simd/mutual.h"

namespace pixelkernels::similarity::PK_ISA {
namespace {

template <class T>
constexpr Kernels kernels_of() {
  using A = Accumulate<T>;
  return {squares<T, A>,
          means<T, A>,
          pack<T, A>,
          scores<T, A>,
          scores_scratch<A>,
          pack_query<T, A>,
          weights_of_block<A>,
          pair_weights_of_block<A>,
          gather<A>,
          finish_query<T, A>,
          finish_points<T, A>,
          pack_anchors<T, A>,
          contrast_pass<T, A>,
          contrast_pass_scratch<A>,
          contrast_gradient<T, A>,
          gradient_scratch<A>,
          log_sums<T, A>,
          mutual_best<T, A>,
          pairs_scratch<A>,
          log_sums_gradient<T, A>};
}

}  // namespace

constexpr PerElement<Kernels> kKernels{
    {kernels_of<Half>(), kernels_of<BFloat16>(), kernels_of<float>(), kernels_of<double>()}};

}  // namespace pixelkernels::similarity::PK_ISA
