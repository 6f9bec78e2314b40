// Vectors of floats, as wide as the processor this is compiled for has them, and what is computed with them.
//
// Every sum is a chain of fused multiply-adds in one order, which depends on the length alone: not on how many
// rows are computed together, nor on threads. What is written here for one row is therefore the same to the
// last bit whatever stands beside it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int LANES = 16;
constexpr int TILE_ROWS = 12;
#else
constexpr int LANES = 8;
constexpr int TILE_ROWS = 6;
#endif
constexpr int TILE_VECTORS = 2;
constexpr int TILE_COLUMNS = TILE_VECTORS * LANES;

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef float UnalignedFloats __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));
typedef uint16_t UnalignedHalves __attribute__((vector_size(LANES * 2), aligned(2)));

typedef uint16_t bfloat16;

static inline Floats load(const float* from) { return *reinterpret_cast<const UnalignedFloats*>(from); }

static inline Floats load(const bfloat16* from) {
  Halves halves = *reinterpret_cast<const UnalignedHalves*>(from);
  return (Floats)(__builtin_convertvector(halves, Ints) << 16);
}

static inline void store(float* to, Floats values) { *reinterpret_cast<UnalignedFloats*>(to) = values; }

// Rounded to the nearest, ties to even; a number that is none stays one.
static inline void store(bfloat16* to, Floats values) {
  Ints bits = (Ints)values;
  Ints rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  Ints quiet = (bits >> 16) | 0x40;
  rounded = values == values ? rounded : quiet;
  *reinterpret_cast<UnalignedHalves*>(to) = __builtin_convertvector(rounded, Halves);
}

static inline float number(float value) { return value; }
static inline float number(bfloat16 value) {
  uint32_t bits = (uint32_t)value << 16;
  float found;
  std::memcpy(&found, &bits, 4);
  return found;
}

static inline void put(float* to, float value) { *to = value; }
static inline void put(bfloat16* to, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  *to = value == value ? (bits + 0x7fff + ((bits >> 16) & 1)) >> 16 : (bits >> 16) | 0x40;
}

static inline Floats all(float value) { return value - Floats{}; }

template <class T>
static inline Floats load_first(const T* from, long count) {
  T values[LANES] = {};
  std::memcpy(values, from, count * sizeof(T));
  return load(values);
}

template <class T>
static inline void store_first(T* to, Floats values, long count) {
  T stored[LANES];
  store(stored, values);
  std::memcpy(to, stored, count * sizeof(T));
}

static inline float sum_of(Floats values) {
  float lanes[LANES];
  store(lanes, values);
  for (int width = LANES / 2; width; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

static inline float largest_of(Floats values) {
  float lanes[LANES];
  store(lanes, values);
  for (int width = LANES / 2; width; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  return lanes[0];
}

// e^x by Cody and Waite's reduction and the polynomial of Cephes' expf; exactly 1 at 0, exactly 0 where e^x is no normal number.
static inline Floats exponential(Floats x) {
  Floats inside = x < -87.0f ? all(-87.0f) : x;
  inside = inside > 88.0f ? all(88.0f) : inside;
  const Floats magic = all(12582912.0f);  // 1.5 * 2^23: its unit in the last place is 1
  Floats rounded = inside * 1.44269504088896341f + magic;
  Ints power = (Ints)rounded - (Ints)magic;
  Floats n = rounded - magic;
  Floats r = inside - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Floats y = all(1.9875691500e-4f);
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r;
  y = y + 1.0f;
  y = y * (Floats)((power + 127) << 23);
  y = x < -87.0f ? Floats{} : y;
  y = x > 88.0f ? all(INFINITY) : y;
  return x == x ? y : x;
}
