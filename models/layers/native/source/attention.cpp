// Causal attention of packed sequences over a paged cache.
//
// A query sees its keys in groups of GROUP, which begin at the sequence's first token wherever the keys lie. For each
// group in turn the largest score so far, the sum of exponentials and the weighted values are brought up to date
// (Flash-Attention's online softmax, Dao et al. 2022), in float32. Which queries are computed together, and whether keys
// come from this step or from an earlier one, changes nothing in what is computed for one query.
//
// A block of the cache holds, for each head, its keys [head_dim, block_size] and its values [block_size, head_dim].
#include <algorithm>
#include <cstdlib>
#include <omp.h>
#include <vector>

#include "tiles.h"

namespace {

constexpr long GROUP = 32;            // keys
constexpr long MOST_ROWS = 48;        // queries, counted once for each head that shares a key head
constexpr long LONGEST_HEAD = 512;
constexpr long QUERY_STRIDE = LONGEST_HEAD + 16;

struct Shape {
  long num_query_heads, num_key_heads, head_dim, block_size, window;
  long query_stride, key_stride, value_stride;  // from token to token
  float scale;
};

struct Sequence {
  long first_token;  // of this step
  long count, start;
  const int64_t* table;  // null: nothing is cached
};

// What one thread works with.
struct Bench {
  alignas(64) float queries[MOST_ROWS * QUERY_STRIDE];
  alignas(64) float scores[MOST_ROWS * GROUP];
  alignas(64) float weighted[MOST_ROWS * LONGEST_HEAD];
  alignas(64) float keys[LONGEST_HEAD * GROUP];
  alignas(64) float values[GROUP * LONGEST_HEAD];
  float largest[MOST_ROWS], total[MOST_ROWS];
};

// Weights of one query's scores in a group, of which keys [low, high) are seen, and what came before scaled to the new maximum.
void weigh(float* scores, long low, long high, float scale, float& largest, float& total, float* weighted, long width) {
  Ints lane;
  for (int i = 0; i < LANES; ++i) lane[i] = i;
  Floats score[GROUP / LANES], top = all(-INFINITY);
  for (long v = 0; v < GROUP / LANES; ++v) {
    Ints key = lane + (int32_t)(v * LANES);
    score[v] = (key >= (int32_t)low) & (key < (int32_t)high) ? load(scores + v * LANES) * scale : all(-INFINITY);
    top = score[v] > top ? score[v] : top;
  }
  const float now = std::max(largest, largest_of(top));
  const float shrink = exponential(all(largest - now))[0];
  Floats sum = {};
  for (long v = 0; v < GROUP / LANES; ++v) {
    Floats weight = exponential(score[v] - now);
    store(scores + v * LANES, weight);
    sum = sum + weight;
  }
  total = total * shrink + sum_of(sum);
  largest = now;
  for (long c = 0; c < width; c += LANES) store(weighted + c, load(weighted + c) * shrink);
}

template <class T>
class Attention {
 public:
  Attention(const Shape& shape, const T* q, const T* k, const T* v, T* k_cache, T* v_cache, T* out)
      : shape_(shape), q_(q), k_(k), v_(v), k_cache_(k_cache), v_cache_(v_cache), out_(out),
        heads_(shape.num_query_heads / shape.num_key_heads),
        width_((shape.head_dim + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS) {}

  void write(const Sequence& sequence, long token) const {
    const long position = sequence.start + token, size = shape_.block_size, dim = shape_.head_dim;
    const long block = sequence.table[position / size], offset = position % size;
    for (long head = 0; head < shape_.num_key_heads; ++head) {
      const T* k = k_ + (sequence.first_token + token) * shape_.key_stride + head * dim;
      const T* v = v_ + (sequence.first_token + token) * shape_.value_stride + head * dim;
      T* keys = k_cache_ + (block * shape_.num_key_heads + head) * dim * size + offset;
      T* values = v_cache_ + ((block * shape_.num_key_heads + head) * size + offset) * dim;
      for (long d = 0; d < dim; ++d) keys[d * size] = k[d];
      std::memcpy(values, v, dim * sizeof(T));
    }
  }

  // The outputs of `count` neighbouring queries in the heads of one key head.
  void compute(Bench& bench, const Sequence& sequence, long first, long count, long head) const {
    const long dim = shape_.head_dim, num_rows = count * heads_;
    for (long row = 0; row < num_rows; ++row) {
      const T* q = q_ + (sequence.first_token + first + row / heads_) * shape_.query_stride + (head * heads_ + row % heads_) * dim;
      for (long d = 0; d < dim; ++d) bench.queries[row * QUERY_STRIDE + d] = number(q[d]);
      std::fill_n(bench.weighted + row * width_, width_, 0.0f);
      bench.largest[row] = -INFINITY;
      bench.total[row] = 0.0f;
    }
    const long position = sequence.start + first, last = position + count - 1;
    const long seen = shape_.window ? std::max(0L, position - shape_.window + 1) : 0;
    for (long begin = seen / GROUP * GROUP; begin <= last; begin += GROUP) group(bench, sequence, position, num_rows, head, begin);
    for (long row = 0; row < num_rows; ++row) {
      T* out = out_ + ((sequence.first_token + first + row / heads_) * shape_.num_query_heads + head * heads_ + row % heads_) * dim;
      const float* weighted = bench.weighted + row * width_;
      for (long d = 0; d < dim; ++d) put(out + d, weighted[d] / bench.total[row]);
    }
  }

 private:
  // The keys from `begin` on.
  void group(Bench& bench, const Sequence& sequence, long position, long num_rows, long head, long begin) const {
    const long num_tiles = (num_rows + TILE_ROWS - 1) / TILE_ROWS, dim = shape_.head_dim;
    const long last = position + (num_rows - 1) / heads_;
    const long num_keys = std::min(GROUP, last + 1 - begin);
    long keys_stride, values_stride;
    const float* keys = keys_of(bench, sequence, head, begin, num_keys, keys_stride);
    const float* values = values_of(bench, sequence, head, begin, num_keys, values_stride);
    for (long tile = 0; tile < num_tiles; ++tile) {
      const long first = num_rows * tile / num_tiles, rows = num_rows * (tile + 1) / num_tiles - first;
      float* scores = bench.scores + first * GROUP;
      for (long c = 0; c < GROUP; c += TILE_COLUMNS)
        add_products<Float32, QUERY_STRIDE>(rows, bench.queries + first * QUERY_STRIDE, keys + c, keys_stride, dim, scores + c,
                                            GROUP, true);
      long seen = 0;
      for (long row = first; row < first + rows; ++row) {
        const long at = position + row / heads_;
        const long low = shape_.window ? std::max(0L, at - shape_.window + 1 - begin) : 0, high = std::min(GROUP, at + 1 - begin);
        if (low >= high) {
          std::fill_n(bench.scores + row * GROUP, GROUP, 0.0f);
          continue;
        }
        seen = std::max(seen, high);
        weigh(bench.scores + row * GROUP, low, high, shape_.scale, bench.largest[row], bench.total[row],
              bench.weighted + row * width_, width_);
      }
      for (long c = 0; c < width_; c += TILE_COLUMNS)
        add_products<Float32, GROUP>(rows, scores, values + c, values_stride, seen, bench.weighted + first * width_ + c, width_,
                                     false);
    }
  }

  // A group's keys as [head_dim, GROUP]: where they lie, if they lie so, else put together.
  const float* keys_of(Bench& bench, const Sequence& sequence, long head, long begin, long count, long& stride) const {
    const long dim = shape_.head_dim, size = shape_.block_size;
    stride = GROUP;
    if (sequence.table && size % GROUP == 0) {
      const T* keys = k_cache_ + (sequence.table[begin / size] * shape_.num_key_heads + head) * dim * size + begin % size;
      if (sizeof(T) == sizeof(float)) {
        stride = size;
        return reinterpret_cast<const float*>(keys);
      }
      for (long d = 0; d < dim; ++d)
        for (long c = 0; c < GROUP; c += LANES) store(bench.keys + d * GROUP + c, load(keys + d * size + c));
      return bench.keys;
    }
    for (long i = 0; i < count; ++i) {
      const long key = begin + i;
      const T* from = sequence.table
          ? k_cache_ + (sequence.table[key / size] * shape_.num_key_heads + head) * dim * size + key % size
          : k_ + (sequence.first_token + key) * shape_.key_stride + head * dim;
      const long step = sequence.table ? size : 1;
      for (long d = 0; d < dim; ++d) bench.keys[d * GROUP + i] = number(from[d * step]);
    }
    return bench.keys;
  }

  // A group's values as [GROUP, width].
  const float* values_of(Bench& bench, const Sequence& sequence, long head, long begin, long count, long& stride) const {
    const long dim = shape_.head_dim, size = shape_.block_size;
    stride = width_;
    if (sizeof(T) == sizeof(float) && sequence.table && size % GROUP == 0 && dim == width_) {
      stride = dim;
      return reinterpret_cast<const float*>(v_cache_ + ((sequence.table[begin / size] * shape_.num_key_heads + head) * size + begin % size) * dim);
    }
    for (long i = 0; i < count; ++i) {
      const long key = begin + i;
      const T* from = sequence.table
          ? v_cache_ + ((sequence.table[key / size] * shape_.num_key_heads + head) * size + key % size) * dim
          : v_ + (sequence.first_token + key) * shape_.value_stride + head * dim;
      float* to = bench.values + i * width_;
      long d = 0;
      for (; d + LANES <= dim; d += LANES) store(to + d, load(from + d));
      for (; d < width_; ++d) to[d] = d < dim ? number(from[d]) : 0.0f;
    }
    return bench.values;
  }

  const Shape shape_;
  const T *q_, *k_, *v_;
  T *k_cache_, *v_cache_, *out_;
  const long heads_, width_;
};

struct Task {
  long sequence, first, count;
};

template <class T>
void attend(const Shape& shape, const T* q, const T* k, const T* v, T* k_cache, T* v_cache, T* out, long num_sequences,
            const int64_t* counts, const int64_t* starts, const int64_t* tables, long table_width) {
  std::vector<Sequence> sequences;
  std::vector<Task> tasks;
  const long most = std::max(1L, MOST_ROWS / (shape.num_query_heads / shape.num_key_heads));
  long token = 0;
  for (long s = 0; s < num_sequences; ++s) {
    sequences.push_back({token, counts[s], starts[s], tables ? tables + s * table_width : nullptr});
    token += counts[s];
    for (long first = (counts[s] - 1) / most * most; first >= 0; first -= most)  // those with most keys first
      tasks.push_back({s, first, std::min(most, counts[s] - first)});
  }
  const Attention<T> attention(shape, q, k, v, k_cache, v_cache, out);
  const long num_tasks = tasks.size();
#pragma omp parallel
  {
    if (tables) {
#pragma omp for schedule(static)
      for (long i = 0; i < num_tasks; ++i)
        for (long t = 0; t < tasks[i].count; ++t) attention.write(sequences[tasks[i].sequence], tasks[i].first + t);
    }
    Bench* bench = static_cast<Bench*>(std::aligned_alloc(64, sizeof(Bench)));
#pragma omp for collapse(2) schedule(dynamic)
    for (long i = 0; i < num_tasks; ++i)
      for (long head = 0; head < shape.num_key_heads; ++head)
        attention.compute(*bench, sequences[tasks[i].sequence], tasks[i].first, tasks[i].count, head);
    std::free(bench);
  }
}

}  // namespace

#define MILLRACE_ATTENTION(name, T)                                                                                      \
  extern "C" void name(const T* q, const T* k, const T* v, T* k_cache, T* v_cache, T* out, long num_sequences,            \
                       const int64_t* counts, const int64_t* starts, const int64_t* tables, long table_width,             \
                       long num_query_heads, long num_key_heads, long head_dim, long block_size, long window,             \
                       long query_stride, long key_stride, long value_stride, float scale) {                              \
    const Shape shape = {num_query_heads, num_key_heads, head_dim,     block_size, window,                                \
                         query_stride,    key_stride,    value_stride, scale};                                            \
    attend<T>(shape, q, k, v, k_cache, v_cache, out, num_sequences, counts, starts, tables, table_width);                 \
  }

MILLRACE_ATTENTION(millrace_attention_float32, float)
MILLRACE_ATTENTION(millrace_attention_bfloat16, bfloat16)
