// x Wᵀ over a packed W: y[r][c] = x[r][0] w[c][0], then + x[r][k] w[c][k] for k = 1, 2, ... in float32, then the bias.
//
// A tile of up to TILE_ROWS rows and TILE_COLUMNS columns is kept in registers while k runs over a slice of the rows;
// between slices it lies in memory, as the float32 that it is. Neither changes the order of the sum.
//
// Two numbers in bfloat16 are one step of the sum where the processor has instructions for that (AVX512_BF16).
#include <algorithm>
#include <cstdlib>
#include <omp.h>

#include "tiles.h"

namespace {

constexpr long SLICE = 256;                // words of a row between two visits of a tile
constexpr long STRIDE = SLICE + 16;        // between rows of a slice: not all in one set of the cache
constexpr long KEPT_BYTES = 512 << 10;     // of the rows of x that a thread goes through once for each panel of W

// Which rows of x stand in which tile: all tiles have about the same number.
struct Tiles {
  long num_rows, count;
  explicit Tiles(long rows) : num_rows(rows), count((rows + TILE_ROWS - 1) / TILE_ROWS) {}
  long first(long tile) const { return num_rows * tile / count; }
};

// One row into slices of words; a last word that is not full ends with zeros.
template <class T>
void slice(const typename T::Number* row, long length, long num_words, typename T::Word* to) {
  for (long first = 0; first < num_words; first += SLICE, to += TILE_ROWS * STRIDE) {
    long words = std::min(SLICE, num_words - first);
    long numbers = std::min(words * T::NUMBERS, length - first * T::NUMBERS);
    if (numbers < words * T::NUMBERS) to[words - 1] = 0;
    std::memcpy(to, row + first * T::NUMBERS, numbers * sizeof(typename T::Number));
  }
}

template <class Out>
void write(Out* y, const float* sums, const float* bias, long columns) {
  for (long c = 0; c < columns; c += LANES) {
    long count = std::min<long>(LANES, columns - c);
    Floats found = load(sums + c);
    if (bias) found = found + (count == LANES ? load(bias + c) : load_first(bias + c, count));
    if (count == LANES)
      store(y + c, found);
    else
      store_first(y + c, found, count);
  }
}

template <class T, class Out>
void product(const typename T::Number* x, const typename T::Word* packed, const float* bias, Out* y, long num_rows,
             long num_columns, long length) {
  typedef typename T::Word Word;
  const long num_words = (length + T::NUMBERS - 1) / T::NUMBERS;
  const long num_slices = (num_words + SLICE - 1) / SLICE;
  const long num_panels = (num_columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
  const Tiles tiles(num_rows);
  const long tile_words = num_slices * TILE_ROWS * STRIDE;
  const long kept = std::max<long>(1, std::min<long>(tiles.count, KEPT_BYTES / (tile_words * (long)sizeof(Word))));
  const long num_groups = (tiles.count + kept - 1) / kept;
  const int num_threads = omp_get_max_threads();
  const long num_parts = std::min<long>(num_panels, num_threads);
#pragma omp parallel num_threads(num_threads)
  {
    Word* rows = static_cast<Word*>(std::aligned_alloc(64, kept * tile_words * sizeof(Word)));
    float* sums = static_cast<float*>(std::aligned_alloc(64, kept * TILE_ROWS * TILE_COLUMNS * sizeof(float)));
#pragma omp for collapse(2) schedule(static)
    for (long part = 0; part < num_parts; ++part)
      for (long group = 0; group < num_groups; ++group) {
        const long first = tiles.count * group / num_groups, after = tiles.count * (group + 1) / num_groups;
        for (long t = first; t < after; ++t)
          for (long row = tiles.first(t); row < tiles.first(t + 1); ++row)
            slice<T>(x + row * length, length, num_words, rows + (t - first) * tile_words + (row - tiles.first(t)) * STRIDE);
        for (long p = num_panels * part / num_parts; p < num_panels * (part + 1) / num_parts; ++p) {
          for (long s = 0; s < num_slices; ++s)
            for (long t = first; t < after; ++t)
              add_products<T, STRIDE>(tiles.first(t + 1) - tiles.first(t), rows + (t - first) * tile_words + s * TILE_ROWS * STRIDE,
                                      packed + (p * num_words + s * SLICE) * TILE_COLUMNS, TILE_COLUMNS,
                                      std::min(SLICE, num_words - s * SLICE), sums + (t - first) * TILE_ROWS * TILE_COLUMNS,
                                      TILE_COLUMNS, s == 0);
          const long column = p * TILE_COLUMNS, columns = std::min<long>(TILE_COLUMNS, num_columns - column);
          for (long t = first; t < after; ++t)
            for (long row = tiles.first(t); row < tiles.first(t + 1); ++row)
              write(y + row * num_columns + column, sums + ((t - first) * TILE_ROWS + row - tiles.first(t)) * TILE_COLUMNS,
                    bias ? bias + column : nullptr, columns);
        }
      }
    std::free(rows);
    std::free(sums);
  }
}

// W [columns, length] -> panels of TILE_COLUMNS rows of W, by words: [panels, words, TILE_COLUMNS].
template <class T>
void pack(const typename T::Number* weight, typename T::Word* packed, long num_columns, long length) {
  typedef typename T::Number Number;
  const long num_words = (length + T::NUMBERS - 1) / T::NUMBERS;
  const long num_panels = (num_columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
#pragma omp parallel for
  for (long p = 0; p < num_panels; ++p)
    for (long c = 0; c < TILE_COLUMNS; ++c) {
      const long column = p * TILE_COLUMNS + c;
      for (long k = 0; k < num_words; ++k) {
        Number numbers[T::NUMBERS] = {};
        for (int i = 0; i < T::NUMBERS; ++i)
          if (column < num_columns && k * T::NUMBERS + i < length) numbers[i] = weight[column * length + k * T::NUMBERS + i];
        std::memcpy(packed + (p * num_words + k) * TILE_COLUMNS + c, numbers, sizeof(typename T::Word));
      }
    }
}

}  // namespace

extern "C" {

int millrace_tile_columns() { return TILE_COLUMNS; }

void millrace_pack_float32(const float* weight, float* packed, long num_columns, long length) {
  pack<Float32>(weight, packed, num_columns, length);
}

void millrace_product_float32(const float* x, const float* packed, const float* bias, float* y, long num_rows,
                              long num_columns, long length) {
  product<Float32>(x, packed, bias, y, num_rows, num_columns, length);
}

#if defined(__AVX512BF16__)
int millrace_has_bfloat16() { return 1; }

void millrace_pack_bfloat16(const bfloat16* weight, uint32_t* packed, long num_columns, long length) {
  pack<Bfloat16>(weight, packed, num_columns, length);
}

void millrace_product_bfloat16(const bfloat16* x, const uint32_t* packed, const float* bias, bfloat16* y, long num_rows,
                               long num_columns, long length) {
  product<Bfloat16>(x, packed, bias, y, num_rows, num_columns, length);
}

void millrace_product_bfloat16_to_float32(const bfloat16* x, const uint32_t* packed, const float* bias, float* y,
                                          long num_rows, long num_columns, long length) {
  product<Bfloat16>(x, packed, bias, y, num_rows, num_columns, length);
}
#else
int millrace_has_bfloat16() { return 0; }
#endif
}
