// The similarity kernels of one instruction set, PK_ISA; the build compiles this file once for
// each. Nothing from the standard library's templates may be used here: the linker could hand one
// set's copy to another.
#include "similarity_gradient_simd.h"

namespace pixelkernels {
namespace PK_ISA {
namespace {

template <class T>
constexpr SimilarityKernels kernels_of() {
  using A = Accumulate<T>;
  return {squares<T, A>,     means<T, A>,        pack<T, A>,         scores<T, A>,
          scores_scratch<A>, pack_query<T, A>,   weigh<A>,           weigh_pairs<A>,
          gather<A>,         finish_query<T, A>, finish_points<T, A>};
}

}  // namespace

const SimilarityKernels& similarity_kernels(Element element) {
  static constexpr SimilarityKernels half = kernels_of<Half>(), bfloat16 = kernels_of<BFloat16>(),
                                     single = kernels_of<float>(), twice = kernels_of<double>();
  switch (element) {
    case Element::kHalf:
      return half;
    case Element::kBFloat16:
      return bfloat16;
    case Element::kFloat:
      return single;
    default:
      return twice;
  }
}

}  // namespace PK_ISA
}  // namespace pixelkernels
