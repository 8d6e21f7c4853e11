// The distance kernels of one instruction set, PK_ISA; the build compiles this file once for each.
// Nothing from the standard library's templates may be used here: the linker could hand one set's
// copy to another.
#include "distance_choice_simd.h"
#include "distance_clicks_simd.h"

namespace pixelkernels {
namespace PK_ISA {
namespace {

void any_columns(const Transform& s, int64_t image, int64_t begin, int64_t end) {
  (s.whole ? columns<uint32_t> : columns<float>)(s, image, begin, end);
}

void any_rows(const Transform& s, int64_t image, int64_t begin, int64_t end, void* scratch) {
  (s.whole ? rows<uint32_t> : rows<float>)(s, image, begin, end, scratch);
}

}  // namespace

const DistanceKernels kDistanceKernels{click_rows, any_columns, any_rows, error_columns,
                                       error_rows, inner_rows,  pick};

}  // namespace PK_ISA
}  // namespace pixelkernels
