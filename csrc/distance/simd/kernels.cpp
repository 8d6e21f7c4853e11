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

// Of words, which are only wide on sides for which squares are not whole.
template <auto whole, auto other, auto wide, class Problem, class... Args>
void by_words(const Problem& s, Args... args) {
  (s.whole ? whole : has_wide_words(s) ? wide : other)(s, args...);
}

}  // namespace

constexpr Kernels kKernels{
    click_rows,
    find_changes,
    either<first_axis<uint32_t>, first_axis<float>>,
    either<columns<uint32_t>, columns<float>>,
    either<rows<uint32_t>, rows<float>>,
    by_words<nearest_of_first_axis<int32_t>, nearest_of_first_axis<int32_t>,
             nearest_of_first_axis<int64_t>>,
    by_words<nearest_of_columns<uint32_t, int32_t>, nearest_of_columns<double, int32_t>,
             nearest_of_columns<double, int64_t>>,
    by_words<nearest_of_rows<uint32_t, int32_t>, nearest_of_rows<double, int32_t>,
             nearest_of_rows<double, int64_t>>,
    by_words<labels_of_rows<uint32_t, int32_t>, labels_of_rows<double, int32_t>,
             labels_of_rows<double, int64_t>>,
    error_columns,
    error_rows,
    inner_rows,
    pick};

}  // namespace pixelkernels::distance::PK_ISA
