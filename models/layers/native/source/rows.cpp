// What is computed of each row, or each number, by itself.
#include <algorithm>
#include <cmath>

#include "vectors.h"

namespace {

template <class T>
Floats rounded(Floats values) {
  T stored[LANES];
  store(stored, values);
  return load(stored);
}

// x / sqrt(mean x² + eps), rounded to T unless `rounds_last`, times a weight.
template <class T>
void normalize(const T* x, const T* weight, T* y, long size, float eps, bool rounds_last) {
  const long whole = size / LANES * LANES;
  Floats squares = {};
  for (long i = 0; i < whole; i += LANES) {
    Floats value = load(x + i);
    squares = squares + value * value;
  }
  if (whole < size) {
    Floats value = load_first(x + whole, size - whole);
    squares = squares + value * value;
  }
  const float scale = 1.0f / std::sqrt(sum_of(squares) / size + eps);
  for (long i = 0; i < size; i += LANES) {
    const long count = std::min<long>(LANES, size - i);
    const bool is_whole = count == LANES;
    Floats value = (is_whole ? load(x + i) : load_first(x + i, count)) * scale;
    if (!rounds_last) value = rounded<T>(value);
    value = value * (is_whole ? load(weight + i) : load_first(weight + i, count));
    if (is_whole)
      store(y + i, value);
    else
      store_first(y + i, value, count);
  }
}

// `num_weights` weights stand below each other, one for each of neighbouring rows.
template <class T>
void norm(const T* x, const T* weights, T* y, long num_rows, long per_token, long num_weights, long token_stride, long size, float eps,
          bool rounds_last) {
#pragma omp parallel for schedule(static) if (num_rows * size > 16384)
  for (long row = 0; row < num_rows; ++row)
    normalize(x + row / per_token * token_stride + row % per_token * size, weights + row % num_weights * size, y + row * size, size,
              eps, rounds_last);
}

// silu(gate) * up of rows [gate, up], each of `size` numbers.
template <class T>
void gated(const T* gate_up, T* y, long num_rows, long size) {
#pragma omp parallel for schedule(static) if (num_rows * size > 16384)
  for (long row = 0; row < num_rows; ++row) {
    const T *gates = gate_up + 2 * row * size, *ups = gates + size;
    T* to = y + row * size;
    for (long i = 0; i < size; i += LANES) {
      const long count = std::min<long>(LANES, size - i);
      const bool is_whole = count == LANES;
      Floats gate = is_whole ? load(gates + i) : load_first(gates + i, count);
      Floats up = is_whole ? load(ups + i) : load_first(ups + i, count);
      Floats found = rounded<T>(gate / (1.0f + exponential(-gate))) * up;
      if (is_whole)
        store(to + i, found);
      else
        store_first(to + i, found, count);
    }
  }
}

}  // namespace

#define MILLRACE_ROWS(T, suffix)                                                                                          \
  extern "C" void millrace_norm_##suffix(const T* x, const T* weights, T* y, long num_rows, long per_token,               \
                                         long num_weights, long token_stride, long size, float eps, int rounds_last) {    \
    norm<T>(x, weights, y, num_rows, per_token, num_weights, token_stride, size, eps, rounds_last);                       \
  }                                                                                                                       \
  extern "C" void millrace_gated_##suffix(const T* gate_up, T* y, long num_rows, long size) {                             \
    gated<T>(gate_up, y, num_rows, size);                                                                                 \
  }

MILLRACE_ROWS(float, float32)
MILLRACE_ROWS(bfloat16, bfloat16)
