// The distance kernels of one instruction set.
#include "distance/simd/click_maps.h"
#include "distance/simd/clicks.h"
#include "distance/simd/nearest.h"

namespace pixelkernels::distance::PK_ISA {
namespace {

// `whole` for squares in uint32, else `other`.
template <auto whole, auto other, class Problem, class... Args>
void either(const Problem& s, Args... args) {
  (s.whole ? whole : other)(s, args...);
}

}  // namespace

constexpr Kernels kKernels{click_rows,
                           find_changes,
                           either<first_axis<uint32_t>, first_axis<float>>,
                           either<columns<uint32_t>, columns<float>>,
                           either<rows<uint32_t>, rows<float>>,
                           nearest_of_first_axis,
                           either<nearest_of_columns<uint32_t>, nearest_of_columns<double>>,
                           either<nearest_of_rows<uint32_t>, nearest_of_rows<double>>,
                           either<labels_of_rows<uint32_t>, labels_of_rows<double>>,
                           error_columns,
                           error_rows,
                           inner_rows,
                           pick};

}  // namespace pixelkernels::distance::PK_ISA
