// Sums of products, a tile of up to TILE_ROWS rows and TILE_COLUMNS columns at a time, which registers hold.
#pragma once

#include "vectors.h"

namespace {  // of its own in each library: two that are compiled for two processors may be loaded by one process

struct Float32 {
  typedef float Number;
  typedef float Word;  // what one step of a sum takes of a row
  static constexpr int NUMBERS = 1;
  static inline Floats add(Floats sum, Word left, const Word* right) { return sum + all(left) * load(right); }
};

#if defined(__AVX512BF16__)
struct Bfloat16 {
  typedef bfloat16 Number;
  typedef uint32_t Word;
  static constexpr int NUMBERS = 2;
  static inline Floats add(Floats sum, Word left, const Word* right) {
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(right), (__m512bh)_mm512_set1_epi32(left));
  }
};
#endif

// sums [ROWS, TILE_COLUMNS] += left [ROWS, n] right [n, TILE_COLUMNS], word by word from the first to the last; with
// `is_first` they begin at 0. Strides are from row to row, in words.
template <class T, int ROWS, long LEFT_STRIDE>
void tile(const typename T::Word* left, const typename T::Word* right, long right_stride, long n, float* sums, long sums_stride,
          bool is_first) {
  Floats sum[ROWS][TILE_VECTORS];
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
    for (int v = 0; v < TILE_VECTORS; ++v) sum[row][v] = is_first ? Floats{} : load(sums + row * sums_stride + v * LANES);
  for (long k = 0; k < n; ++k) {
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
      for (int v = 0; v < TILE_VECTORS; ++v)
        sum[row][v] = T::add(sum[row][v], left[row * LEFT_STRIDE + k], right + k * right_stride + v * LANES);
  }
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
    for (int v = 0; v < TILE_VECTORS; ++v) store(sums + row * sums_stride + v * LANES, sum[row][v]);
}

// The same of 1 to TILE_ROWS rows.
template <class T, long LEFT_STRIDE>
void add_products(long rows, const typename T::Word* left, const typename T::Word* right, long right_stride, long n, float* sums,
                  long sums_stride, bool is_first) {
  typedef void (*Tile)(const typename T::Word*, const typename T::Word*, long, long, float*, long, bool);
  static constexpr Tile by_rows[] = {
      tile<T, 1, LEFT_STRIDE>, tile<T, 2, LEFT_STRIDE>, tile<T, 3, LEFT_STRIDE>,  tile<T, 4, LEFT_STRIDE>,  tile<T, 5, LEFT_STRIDE>,
      tile<T, 6, LEFT_STRIDE>,
#if defined(__AVX512F__)
      tile<T, 7, LEFT_STRIDE>, tile<T, 8, LEFT_STRIDE>, tile<T, 9, LEFT_STRIDE>, tile<T, 10, LEFT_STRIDE>, tile<T, 11, LEFT_STRIDE>,
      tile<T, 12, LEFT_STRIDE>,
#endif
  };
  by_rows[rows - 1](left, right, right_stride, n, sums, sums_stride, is_first);
}

}  // namespace
