// The distance kernels of one instruction set.
#include "distance/simd/click_maps.h"
#include "distance/simd/clicks.h"

namespace pixelkernels::distance::PK_ISA {
namespace {

void any_columns(const Transform& s, int64_t image, int64_t begin, int64_t end) {
  (s.whole ? columns<uint32_t> : columns<float>)(s, image, begin, end);
}

void any_rows(const Transform& s, int64_t image, int64_t begin, int64_t end, void* scratch) {
  (s.whole ? rows<uint32_t> : rows<float>)(s, image, begin, end, scratch);
}

}  // namespace

constexpr Kernels kKernels{click_rows, any_columns, any_rows, error_columns,
                           error_rows, inner_rows,  pick};

}  // namespace pixelkernels::distance::PK_ISA
