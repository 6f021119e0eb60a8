// The queries of all heads that share one head of keys are the rows of one matrix: each head of keys is read
// once, and its gradients are sums over those rows.
// R = T · H / K rows; S and E up to whole vectors where a matrix has them for columns.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "kernels/cpu_vector.h"
#include "kernels/dense_rows.h"
#include "kernels/short_attention.h"
#include "kernels/small_attention.h"

namespace fathom::kernels {
namespace {

/// A tensor [B, heads, rows, E] whose rows are dense, by its strides.
template <typename T>
struct HeadRows {
  HeadRows(const at::Tensor& x, T* elements)
      : data(elements), batch(x.stride(0)), head(x.stride(1)), row(x.stride(2)) {}
  T* of_head(int64_t b, int64_t h) const { return data + b * batch + h * head; }

  T* data;
  int64_t batch, head, row;
};

template <typename T>
HeadRows<const T> read_from(const at::Tensor& x) {
  return {x, x.const_data_ptr<T>()};
}
template <typename T>
HeadRows<T> write_to(at::Tensor& x) {
  return {x, x.mutable_data_ptr<T>()};
}

template <typename T>
FATHOM_CPU_CLONES void read_head(const T* from, int64_t from_row, int64_t rows, Compute<T>* to,
                                 int64_t to_row, int64_t size, Compute<T> factor) {
  for (int64_t i = 0; i < rows; ++i, from += from_row, to += to_row)
    for (int64_t j = 0; j < size; ++j) to[j] = load(from[j]) * factor;
}

template <typename T>
FATHOM_CPU_CLONES void write_head(const Compute<T>* from, int64_t from_row, int64_t rows, T* to,
                                  int64_t to_row, int64_t size, Compute<T> factor) {
  for (int64_t i = 0; i < rows; ++i, from += from_row, to += to_row)
    for (int64_t j = 0; j < size; ++j) store(to[j], from[j] * factor);
}

/// What all heads of a call share.
template <typename T>
struct ShortHeads {
  using C = Compute<T>;
  ShortHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask_BHTS,
             bool is_causal)
      : kv_heads(k.size(1)),
        group(q.size(1) / k.size(1)),
        queries(q.size(2)),
        keys(k.size(2)),
        size(q.size(3)),
        causal(is_causal),
        q_rows(read_from<T>(q)),
        k_rows(read_from<T>(k)),
        v_rows(read_from<T>(v)),
        mask(mask_BHTS) {}

  int64_t kv_heads, group, queries, keys, size;
  bool causal;
  HeadRows<const T> q_rows, k_rows, v_rows;
  at::Tensor mask;  ///< bool [B, H, T, S] with steps of 0, or undefined

  int64_t rows = group * queries, columns = whole_vectors<C>(keys), width = whole_vectors<C>(size);
  C scale = C(1) / std::sqrt(static_cast<C>(size));
};

bool is_same_along(const at::Tensor& mask, int64_t dim) {
  return mask.stride(dim) == 0 || mask.size(dim) == 1;
}

/// What is added to scores: kNoPlace where a query may not look. One row for all queries, where they see the
/// same keys.
template <typename C>
class HiddenPlaces {
 public:
  template <typename Heads>
  explicit HiddenPlaces(const Heads& of)
      : is_alike_(!of.causal &&
                  (!of.mask.defined() || (is_same_along(of.mask, 1) && is_same_along(of.mask, 2)))),
        added_(static_cast<size_t>((is_alike_ ? 1 : of.rows) * of.columns)) {
    if (!of.mask.defined()) fill(of, nullptr);
  }

  template <typename Heads>
  void move_to(const Heads& of, int64_t batch, int64_t kv_head) {
    if (!of.mask.defined()) return;
    const bool* mask = of.mask.template const_data_ptr<bool>() + batch * of.mask.stride(0) +
                       kv_head * of.group * of.mask.stride(1);
    if (mask != filled_with_) fill(of, mask);
    filled_with_ = mask;
  }
  const C* added() const { return added_.data(); }
  int64_t row(int64_t columns) const { return is_alike_ ? 0 : columns; }

 private:
  template <typename Heads>
  void fill(const Heads& of, const bool* mask) {
    for (int64_t row = 0; row < (is_alike_ ? 1 : of.rows); ++row) {
      const int64_t head = row / of.queries, query = row % of.queries;
      const int64_t seen = of.causal ? std::min(query + 1, of.keys) : of.keys;
      C* to = added_.data() + row * of.columns;
      std::fill(to, to + of.columns, C(kNoPlace));
      std::fill(to, to + seen, C(0));
      if (mask == nullptr) continue;
      const bool* from = mask + head * of.mask.stride(1) + query * of.mask.stride(2);
      for (int64_t i = 0; i < seen; ++i) to[i] = from[i * of.mask.stride(3)] ? C(0) : C(kNoPlace);
    }
  }

  bool is_alike_;
  const bool* filled_with_ = nullptr;
  std::vector<C> added_;
};

/// Zeros, with room for whole vectors of rows.
template <typename C>
class SmallMatrix {
 public:
  SmallMatrix(int64_t rows, int64_t columns)
      : data_(static_cast<size_t>(whole_vectors<C>(rows) * columns)), columns_(columns) {}
  C* data() { return data_.data(); }
  const C* data() const { return data_.data(); }
  int64_t row() const { return columns_; }

 private:
  std::vector<C> data_;
  int64_t columns_;
};

/// The matrices of the queries that look at one head of keys, and of those keys; queries are scaled.
template <typename T>
class ShortHeadMatrices {
 public:
  using C = Compute<T>;
  ShortHeadMatrices(const ShortHeads<T>& of, bool learns)
      : of_(of),
        hidden_(of),
        query_(of.rows, of.width),
        key_(of.keys, of.width),
        value_(of.keys, of.width),
        turned_(of.width, of.columns),
        p_(of.rows, of.columns),
        result_(std::max(of.rows, of.keys), of.width),
        grad_result_(learns ? of.rows : 0, of.width),
        grad_p_(learns ? of.rows : 0, of.columns) {}

  /// p = softmax(q kᵀ + hidden).
  void score(int64_t batch, int64_t kv_head) {
    batch_ = batch, kv_head_ = kv_head;
    hidden_.move_to(of_, batch, kv_head);
    read_queries(of_.q_rows, query_, of_.scale);
    read_keys(of_.k_rows, key_);
    read_keys(of_.v_rows, value_);
    by_transposed(query_, key_, p_);
    softmax_small<C>({.scores = p_.data(),
                      .added = hidden_.added(),
                      .added_row = hidden_.row(of_.columns),
                      .also_added = nullptr,
                      .rows = of_.rows,
                      .columns = of_.columns});
  }
  /// y = p v.
  void attend(const HeadRows<T>& y) {
    sum_over_keys(p_, value_);
    write_queries(y, C(1));
  }
  /// From the gradient of y.
  void backward(const HeadRows<const T>& grad, const HeadRows<T>& grad_q, const HeadRows<T>& grad_k,
                const HeadRows<T>& grad_v) {
    read_queries(grad, grad_result_, C(1));
    by_transposed(grad_result_, value_, grad_p_);
    sum_over_queries(p_, grad_result_);
    write_keys(grad_v);
    softmax_small_backward<C>(grad_p_.data(), p_.data(), nullptr, of_.rows, of_.columns);
    sum_over_keys(grad_p_, key_);
    write_queries(grad_q, of_.scale);
    sum_over_queries(grad_p_, query_);
    write_keys(grad_k);
  }

 private:
  void read_queries(const HeadRows<const T>& from, SmallMatrix<C>& to, C factor) {
    for (int64_t i = 0; i < of_.group; ++i)
      read_head(from.of_head(batch_, kv_head_ * of_.group + i), from.row, of_.queries,
                to.data() + i * of_.queries * of_.width, of_.width, of_.size, factor);
  }
  void read_keys(const HeadRows<const T>& from, SmallMatrix<C>& to) {
    read_head(from.of_head(batch_, kv_head_), from.row, of_.keys, to.data(), of_.width, of_.size, C(1));
  }
  void write_queries(const HeadRows<T>& to, C factor) const {
    for (int64_t i = 0; i < of_.group; ++i)
      write_head(result_.data() + i * of_.queries * of_.width, of_.width, of_.queries,
                 to.of_head(batch_, kv_head_ * of_.group + i), to.row, of_.size, factor);
  }
  void write_keys(const HeadRows<T>& to) const {
    write_head(result_.data(), of_.width, of_.keys, to.of_head(batch_, kv_head_), to.row, of_.size, C(1));
  }
  /// [R, E] by the transpose of [S, E].
  void by_transposed(const SmallMatrix<C>& left, const SmallMatrix<C>& right, SmallMatrix<C>& to) {
    transpose_small(right.data(), of_.width, turned_.data(), of_.columns, of_.columns, of_.width);
    multiply_small<C>({.a = left.data(),
                       .a_row = of_.width,
                       .a_step = 1,
                       .b = turned_.data(),
                       .b_row = of_.columns,
                       .c = to.data(),
                       .c_row = of_.columns,
                       .rows = of_.rows,
                       .depth = of_.size,
                       .columns = of_.columns});
  }
  /// result [R, E] = [R, S] by [S, E].
  void sum_over_keys(const SmallMatrix<C>& left, const SmallMatrix<C>& right) {
    multiply_small<C>({.a = left.data(),
                       .a_row = of_.columns,
                       .a_step = 1,
                       .b = right.data(),
                       .b_row = of_.width,
                       .c = result_.data(),
                       .c_row = of_.width,
                       .rows = of_.rows,
                       .depth = of_.keys,
                       .columns = of_.width});
  }
  /// result [S, E] = the transpose of [R, S] by [R, E].
  void sum_over_queries(const SmallMatrix<C>& left, const SmallMatrix<C>& right) {
    multiply_small<C>({.a = left.data(),
                       .a_row = 1,
                       .a_step = of_.columns,
                       .b = right.data(),
                       .b_row = of_.width,
                       .c = result_.data(),
                       .c_row = of_.width,
                       .rows = of_.keys,
                       .depth = of_.rows,
                       .columns = of_.width});
  }

  const ShortHeads<T>& of_;
  HiddenPlaces<C> hidden_;
  SmallMatrix<C> query_, key_, value_, turned_, p_, result_, grad_result_, grad_p_;
  int64_t batch_ = 0, kv_head_ = 0;
};

at::Tensor expanded_mask(const std::optional<at::Tensor>& mask, const at::Tensor& q, const at::Tensor& k) {
  return mask ? mask->expand({q.size(0), q.size(1), q.size(2), k.size(2)}) : at::Tensor();
}

/// Calls `body(matrices, batch, kv_head)` for each head of keys.
template <typename T, typename Body>
void for_each_head(const ShortHeads<T>& of, int64_t batch, bool learns, const Body& body) {
  at::parallel_for(0, batch * of.kv_heads, row_grain(of.rows * of.columns), [&](int64_t begin, int64_t end) {
    ShortHeadMatrices<T> matrices(of, learns);
    for (int64_t i = begin; i < end; ++i) {
      matrices.score(i / of.kv_heads, i % of.kv_heads);
      body(matrices);
    }
  });
}

at::Tensor forward_cpu(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in,
                       const std::optional<at::Tensor>& mask, bool causal) {
  const auto q = with_dense_rows(q_in), k = with_dense_rows(k_in), v = with_dense_rows(v_in);
  auto y = at::empty({q.size(0), q.size(2), q.size(1), q.size(3)}, q.options()).transpose(1, 2);
  dispatch_floating(q.scalar_type(), "short_attention", [&]<typename T>(T) {
    const ShortHeads<T> of(q, k, v, expanded_mask(mask, q, k), causal);
    const HeadRows<T> to = write_to<T>(y);
    for_each_head(of, q.size(0), /*learns=*/false,
                  [&](ShortHeadMatrices<T>& matrices) { matrices.attend(to); });
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_cpu(const at::Tensor& grad_in, const at::Tensor& q_in,
                                                            const at::Tensor& k_in, const at::Tensor& v_in,
                                                            const std::optional<at::Tensor>& mask,
                                                            bool causal) {
  const auto grad = with_dense_rows(grad_in), q = with_dense_rows(q_in), k = with_dense_rows(k_in),
             v = with_dense_rows(v_in);
  auto grad_q = at::empty_like(q, at::MemoryFormat::Contiguous),
       grad_k = at::empty_like(k, at::MemoryFormat::Contiguous),
       grad_v = at::empty_like(v, at::MemoryFormat::Contiguous);
  dispatch_floating(q.scalar_type(), "short_attention", [&]<typename T>(T) {
    const ShortHeads<T> of(q, k, v, expanded_mask(mask, q, k), causal);
    const auto from = read_from<T>(grad);
    const auto to_q = write_to<T>(grad_q), to_k = write_to<T>(grad_k), to_v = write_to<T>(grad_v);
    for_each_head(of, q.size(0), /*learns=*/true,
                  [&](ShortHeadMatrices<T>& matrices) { matrices.backward(from, to_q, to_k, to_v); });
  });
  return {grad_q, grad_k, grad_v};
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("short_attention", forward_cpu);
  library.impl("short_attention_backward", backward_cpu);
}

}  // namespace fathom::kernels
