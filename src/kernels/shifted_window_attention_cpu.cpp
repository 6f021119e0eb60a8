// One head of one window at a time: its queries, keys, values and scores lie in the first caches, so that
// nothing but the map, the bias and the result goes through memory.
// T places of a window, E head size; both up to whole vectors where a matrix has them for columns.
#include <ATen/Parallel.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <vector>

#include "kernels/cpu_vector.h"
#include "kernels/shifted_window_attention.h"
#include "kernels/small_attention.h"
#include "kernels/window_seam.h"

namespace fathom::kernels {
namespace {

/// Rows of a map at these places, of `size` elements each, times `factor`.
template <typename T>
FATHOM_CPU_CLONES void read_rows(const T* from, int64_t from_row, const int64_t* place, int64_t count,
                                 Compute<T>* to, int64_t to_row, int64_t size, Compute<T> factor) {
  for (int64_t i = 0; i < count; ++i) {
    const T* row = from + place[i] * from_row;
    for (int64_t j = 0; j < size; ++j) to[i * to_row + j] = load(row[j]) * factor;
  }
}

template <typename T>
FATHOM_CPU_CLONES void write_rows(const Compute<T>* from, int64_t from_row, const int64_t* place,
                                  int64_t count, T* to, int64_t to_row, int64_t size, Compute<T> factor) {
  for (int64_t i = 0; i < count; ++i) {
    T* row = to + place[i] * to_row;
    for (int64_t j = 0; j < size; ++j) store(row[j], from[i * from_row + j] * factor);
  }
}

/// Where the places of a window lie on the map, and what the seam between them adds to their scores.
template <typename C>
class WindowPlaces {
 public:
  WindowPlaces(const WindowShape& shape, int64_t columns)
      : shape_(shape),
        columns_(columns),
        place_(static_cast<size_t>(shape.side * shape.side)),
        region_(place_.size()),
        mask_(place_.size() * static_cast<size_t>(columns)) {}

  /// Window number `window` of all images.
  void move_to(int64_t window) {
    if (window == window_) return;
    window_ = window;
    const int64_t image = window / shape_.count(), inside = window % shape_.count();
    const int64_t top = inside / shape_.columns() * shape_.side,
                  left = inside % shape_.columns() * shape_.side;
    has_seam_ = false;
    for (size_t i = 0; i < place_.size(); ++i) {
      const int64_t row = top + static_cast<int64_t>(i) / shape_.side,
                    column = left + static_cast<int64_t>(i) % shape_.side;
      const int64_t y = (row + shape_.shift) % shape_.height, x = (column + shape_.shift) % shape_.width;
      place_[i] = (image * shape_.height + y) * shape_.width + x;
      region_[i] = 2 * is_behind_seam(row, shape_.height) + is_behind_seam(column, shape_.width);
      has_seam_ = has_seam_ || region_[i] != region_[0];
    }
    if (has_seam_) fill_mask();
  }
  const int64_t* place() const { return place_.data(); }
  /// [T, columns], or null.
  const C* mask() const { return has_seam_ ? mask_.data() : nullptr; }

 private:
  int64_t is_behind_seam(int64_t position, int64_t length) const {
    return shape_.shift > 0 && position >= length - shape_.shift ? 1 : 0;
  }
  void fill_mask() {
    for (size_t i = 0; i < place_.size(); ++i)
      for (size_t j = 0; j < place_.size(); ++j)
        mask_[i * static_cast<size_t>(columns_) + j] = region_[i] != region_[j] ? C(kSeamScore) : C(0);
  }

  WindowShape shape_;
  int64_t columns_;
  int64_t window_ = -1;
  bool has_seam_ = false;
  std::vector<int64_t> place_, region_;
  std::vector<C> mask_;
};

/// What all windows of a call share. Maps are dense, [B, height, width, ...].
template <typename T>
struct WindowHeads {
  using C = Compute<T>;
  WindowShape shape;
  int64_t heads, places, size;
  int64_t columns = whole_vectors<C>(places), width = whole_vectors<C>(size);
  int64_t windows;  ///< of all images
  const T* qkv;     ///< rows of 3·H·E
  const C* bias;    ///< [H, T, columns]
  C scale;

  int64_t map_row() const { return heads * size; }
  int64_t bias_area() const { return places * columns; }
};

/// The matrices of one head of one window, beginning with queries, which are scaled, keys and values, [T, E]
/// with room for whole vectors of rows.
template <typename T>
class HeadMatrices {
 public:
  using C = Compute<T>;
  explicit HeadMatrices(const WindowHeads<T>& of)
      : of_(of),
        places_(of.shape, of.columns),
        rows_(static_cast<size_t>(5 * of.columns * of.width)),
        turned_(static_cast<size_t>(of.width * of.columns)),
        scores_(static_cast<size_t>(2 * of.bias_area())) {}

  void read(int64_t window, int64_t head) {
    places_.move_to(window);
    for (int64_t part = 0; part < 3; ++part)
      read_rows(of_.qkv + part * of_.map_row() + head * of_.size, 3 * of_.map_row(), places_.place(),
                of_.places, matrix(part), of_.width, of_.size, part == 0 ? of_.scale : C(1));
  }
  /// p = softmax(q kᵀ + bias + mask).
  void score(int64_t head) {
    by_transposed(query(), key(), p());
    softmax_small<C>({.scores = p(),
                      .added = of_.bias + head * of_.bias_area(),
                      .added_row = of_.columns,
                      .also_added = places_.mask(),
                      .rows = of_.places,
                      .columns = of_.columns});
  }
  /// result = p v, [T, E].
  void attend() { multiply_small<C>(product({p(), of_.columns, 1}, value(), result())); }
  void write_result(T* to, int64_t head) const {
    write_rows(result(), of_.width, places_.place(), of_.places, to + head * of_.size, of_.map_row(),
               of_.size, C(1));
  }
  /// Gradients of the head's rows of `grad_qkv`, from that of its result; adds to the bias's.
  void backward(const T* grad, T* grad_qkv, C* grad_bias, int64_t head) {
    read_rows(grad + head * of_.size, of_.map_row(), places_.place(), of_.places, grad_result(), of_.width,
              of_.size, C(1));
    by_transposed(grad_result(), value(), grad_p());
    write_gradient(grad_qkv, 2, head, {p(), 1, of_.columns}, grad_result(), C(1));
    softmax_small_backward(grad_p(), p(), grad_bias, of_.places, of_.columns);
    write_gradient(grad_qkv, 0, head, {grad_p(), of_.columns, 1}, key(), of_.scale);
    write_gradient(grad_qkv, 1, head, {grad_p(), 1, of_.columns}, query(), C(1));
  }

 private:
  /// Of a left factor.
  struct Strided {
    const C* from;
    int64_t row, step;
  };
  C* matrix(int64_t i) { return rows_.data() + i * of_.columns * of_.width; }
  C* query() { return matrix(0); }
  C* key() { return matrix(1); }
  C* value() { return matrix(2); }
  C* grad_result() { return matrix(3); }
  C* result() { return matrix(4); }
  const C* result() const { return rows_.data() + 4 * of_.columns * of_.width; }
  C* p() { return scores_.data(); }
  C* grad_p() { return scores_.data() + of_.bias_area(); }

  /// [T, T] by [T, E].
  SmallProduct<C> product(const Strided& left, const C* right, C* to) const {
    return {.a = left.from,
            .a_row = left.row,
            .a_step = left.step,
            .b = right,
            .b_row = of_.width,
            .c = to,
            .c_row = of_.width,
            .rows = of_.places,
            .depth = of_.places,
            .columns = of_.width};
  }
  /// [T, E] by the transpose of [T, E].
  void by_transposed(const C* left, const C* right, C* to) {
    transpose_small(right, of_.width, turned_.data(), of_.columns, of_.columns, of_.width);
    multiply_small<C>({.a = left,
                       .a_row = of_.width,
                       .a_step = 1,
                       .b = turned_.data(),
                       .b_row = of_.columns,
                       .c = to,
                       .c_row = of_.columns,
                       .rows = of_.places,
                       .depth = of_.size,
                       .columns = of_.columns});
  }
  void write_gradient(T* grad_qkv, int64_t part, int64_t head, const Strided& left, const C* right,
                      C factor) {
    multiply_small<C>(product(left, right, result()));
    write_rows(result(), of_.width, places_.place(), of_.places,
               grad_qkv + part * of_.map_row() + head * of_.size, 3 * of_.map_row(), of_.size, factor);
  }

  const WindowHeads<T>& of_;
  WindowPlaces<C> places_;
  std::vector<C> rows_, turned_, scores_;  ///< zeros where a vector is filled up
};

/// The bias with columns of kNoPlace, in the type that is computed with.
at::Tensor filled_bias(const at::Tensor& bias_HTT, at::ScalarType type) {
  const bool is_double = type == at::kDouble;
  const int64_t places = bias_HTT.size(2),
                columns = is_double ? whole_vectors<double>(places) : whole_vectors<float>(places);
  return at::constant_pad_nd(bias_HTT.to(is_double ? at::kDouble : at::kFloat), {0, columns - places},
                             kNoPlace)
      .contiguous();
}

template <typename T>
WindowHeads<T> window_heads(const at::Tensor& qkv, const at::Tensor& bias, const WindowShape& shape) {
  const int64_t heads = bias.size(0), size = qkv.size(3) / 3 / heads;
  return {.shape = shape,
          .heads = heads,
          .places = shape.side * shape.side,
          .size = size,
          .windows = qkv.size(0) * shape.count(),
          .qkv = qkv.const_data_ptr<T>(),
          .bias = bias.const_data_ptr<Compute<T>>(),
          .scale = Compute<T>(1) / std::sqrt(static_cast<Compute<T>>(size))};
}

at::Tensor forward_cpu(const at::Tensor& qkv_in, const at::Tensor& bias_HTT, int64_t side, int64_t shift) {
  const WindowShape shape = {qkv_in.size(1), qkv_in.size(2), side, shift};
  const auto qkv = qkv_in.contiguous(), bias = filled_bias(bias_HTT, qkv.scalar_type());
  auto y = at::empty({qkv.size(0), shape.height, shape.width, qkv.size(3) / 3}, qkv.options());
  dispatch_floating(qkv.scalar_type(), "shifted_window_attention", [&]<typename T>(T) {
    const auto of = window_heads<T>(qkv, bias, shape);
    T* to = y.mutable_data_ptr<T>();
    at::parallel_for(0, of.windows * of.heads, row_grain(of.bias_area()), [&](int64_t begin, int64_t end) {
      HeadMatrices<T> matrices(of);
      for (int64_t i = begin; i < end; ++i) {
        matrices.read(i / of.heads, i % of.heads);
        matrices.score(i % of.heads);
        matrices.attend();
        matrices.write_result(to, i % of.heads);
      }
    });
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor> backward_cpu(const at::Tensor& grad_in, const at::Tensor& qkv_in,
                                                const at::Tensor& bias_HTT, int64_t side, int64_t shift) {
  const WindowShape shape = {qkv_in.size(1), qkv_in.size(2), side, shift};
  const auto grad = grad_in.contiguous(), qkv = qkv_in.contiguous();
  const auto bias = filled_bias(bias_HTT, qkv.scalar_type());
  auto grad_qkv = at::empty_like(qkv);
  // The bias's gradient is summed in chunks of fixed size, so it does not depend on the number of threads.
  const int64_t windows = qkv.size(0) * shape.count(), chunk = std::max<int64_t>(1, (windows + 15) / 16),
                chunks = (windows + chunk - 1) / chunk;
  auto partial = at::zeros({chunks, bias.size(0), bias.size(1), bias.size(2)}, bias.options());
  dispatch_floating(qkv.scalar_type(), "shifted_window_attention", [&]<typename T>(T) {
    const auto of = window_heads<T>(qkv, bias, shape);
    const T* from = grad.const_data_ptr<T>();
    T* to = grad_qkv.mutable_data_ptr<T>();
    auto* sums = partial.mutable_data_ptr<Compute<T>>();
    at::parallel_for(0, chunks * of.heads, 1, [&](int64_t begin, int64_t end) {
      HeadMatrices<T> matrices(of);
      for (int64_t i = begin; i < end; ++i)
        for (int64_t window = i / of.heads * chunk; window < std::min(windows, (i / of.heads + 1) * chunk);
             ++window) {
          matrices.read(window, i % of.heads);
          matrices.score(i % of.heads);
          matrices.backward(from, to, sums + i * of.bias_area(), i % of.heads);
        }
    });
  });
  const auto grad_bias = at::sum(partial, {0}).narrow(2, 0, bias_HTT.size(2));
  return {grad_qkv, grad_bias.to(bias_HTT.scalar_type()).contiguous()};
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("shifted_window_attention", forward_cpu);
  library.impl("shifted_window_attention_backward", backward_cpu);
}

}  // namespace fathom::kernels
