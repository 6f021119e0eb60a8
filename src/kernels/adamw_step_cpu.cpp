#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <torch/library.h>

#include <atomic>
#include <vector>

#include "kernels/adamw_lists.h"
#include "kernels/cpu_vector.h"
#include "kernels/half_range.h"

namespace fathom::kernels {
namespace {

/// Elements whose four arrays fit the second cache, so that averages and copies are made from it.
constexpr int64_t kAdamWChunk = 16384;

/// Elements [begin, begin + size) of one tensor of a list.
struct ListChunk {
  size_t tensor;
  int64_t begin;
  int64_t size;
};

std::vector<ListChunk> chunks_of(at::TensorList tensors) {
  std::vector<ListChunk> chunks;
  for (size_t i = 0; i < tensors.size(); ++i)
    for (int64_t begin = 0; begin < tensors[i].numel(); begin += kAdamWChunk)
      chunks.push_back({i, begin, std::min(kAdamWChunk, tensors[i].numel() - begin)});
  return chunks;
}

template <typename G>
FATHOM_CPU_CLONES double square_chunk(const G* gradient, int64_t size) {
  return static_cast<double>(sum_of_squares(gradient, size));
}

template <typename T, typename G>
FATHOM_CPU_CLONES void update_chunk(const G* __restrict gradient, T* __restrict parameter,
                                    T* __restrict first, T* __restrict second,
                                    const AdamWCoefficients<T>& coefficients, int64_t size) {
  const AdamWCoefficients<T> by = coefficients;
  for (int64_t i = 0; i < size; ++i) {
    T w = parameter[i], m = first[i], v = second[i];
    adamw_update(by, static_cast<T>(load(gradient[i])), w, m, v);
    parameter[i] = w;
    first[i] = m;
    second[i] = v;
  }
}

template <typename T>
FATHOM_CPU_CLONES void average_chunk(const T* __restrict parameter, T* __restrict average, T weight,
                                     int64_t size) {
  for (int64_t i = 0; i < size; ++i) average[i] += weight * (parameter[i] - average[i]);
}

/// Elements that saturate.
template <typename T, typename Narrow>
FATHOM_CPU_CLONES int64_t copy_chunk(const T* __restrict parameter, Narrow* __restrict copy, int64_t size) {
  int64_t saturated = 0;
  for (int64_t i = 0; i < size; ++i) {
    const auto x = static_cast<float>(parameter[i]);
    if constexpr (std::is_same_v<Narrow, c10::Half>) {
      saturated += saturates_half(x) ? 1 : 0;
      store(copy[i], within_half(x));
    } else {
      store(copy[i], x);
    }
  }
  return saturated;
}

template <typename T>
int64_t copy_parameter(const T* parameter, const at::Tensor& copy, const ListChunk& chunk) {
  return copy.scalar_type() == at::kHalf
             ? copy_chunk(parameter, copy.mutable_data_ptr<c10::Half>() + chunk.begin, chunk.size)
             : copy_chunk(parameter, copy.mutable_data_ptr<c10::BFloat16>() + chunk.begin, chunk.size);
}

/// Elements of its copy that saturate, as below.
template <typename T, typename G>
int64_t step_chunk(const AdamWLists& lists, const ListChunk& chunk, const AdamWScalars& scalars,
                   const AdamWSettings& settings) {
  const size_t i = chunk.tensor;
  const auto coefficients =
      adamw_coefficients<T>(scalars, settings, lists.learning_rate_scales[i], lists.weight_decays[i]);
  const auto elements = [&](const at::Tensor& x) { return x.mutable_data_ptr<T>() + chunk.begin; };
  T* parameter = elements(lists.parameters[i]);
  update_chunk(lists.gradients[i].const_data_ptr<G>() + chunk.begin, parameter, elements(lists.first[i]),
               elements(lists.second[i]), coefficients, chunk.size);
  if (lists.averages[i].defined())
    average_chunk(parameter, elements(lists.averages[i]), static_cast<T>(scalars.average_weight), chunk.size);
  return lists.copies[i].defined() ? copy_parameter(parameter, lists.copies[i], chunk) : 0;
}

int64_t step_chunk(const AdamWLists& lists, const ListChunk& chunk, const AdamWScalars& scalars,
                   const AdamWSettings& settings) {
  if (lists.parameters[chunk.tensor].scalar_type() == at::kDouble)
    return step_chunk<double, double>(lists, chunk, scalars, settings);
  int64_t saturated = 0;
  dispatch_floating(lists.gradients[chunk.tensor].scalar_type(), "adamw_step", [&]<typename G>(G) {
    if constexpr (!std::is_same_v<G, double>)
      saturated = step_chunk<float, G>(lists, chunk, scalars, settings);
  });
  return saturated;
}

at::Tensor norm_cpu(at::TensorList gradients, const std::optional<at::Tensor>& divisor, const at::Tensor&) {
  const std::vector<ListChunk> chunks = chunks_of(gradients);
  std::vector<double> squares(chunks.size());
  at::parallel_for(0, static_cast<int64_t>(chunks.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const at::Tensor& gradient = gradients[chunks[i].tensor];
      dispatch_floating(gradient.scalar_type(), "gradient_norm", [&]<typename G>(G) {
        squares[i] = square_chunk(gradient.const_data_ptr<G>() + chunks[i].begin, chunks[i].size);
      });
    }
  });
  double sum = 0;
  for (const double square : squares) sum += square;
  const double scale = divisor ? static_cast<double>(*divisor->const_data_ptr<float>()) : 1.0;
  return at::full({}, std::sqrt(sum) / scale, gradients[0].options().dtype(at::kDouble));
}

void step_cpu(at::TensorList tensors, at::TensorList scalars_in, const at::Tensor&,
              at::ArrayRef<double> rates, at::ArrayRef<double> settings_in) {
  const AdamWLists lists = adamw_lists(tensors, rates);
  const AdamWSettings settings = adamw_settings(settings_in);
  const AdamWTerms terms = adamw_terms(scalars_in);
  const AdamWScalars scalars = adamw_scalars(adamw_pointers(terms), settings);
  if (scalars.is_skipped) return;
  const std::vector<ListChunk> chunks = chunks_of(lists.parameters);
  std::atomic<int64_t> saturated = 0;
  at::parallel_for(0, static_cast<int64_t>(chunks.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      saturated += step_chunk(lists, chunks[static_cast<size_t>(i)], scalars, settings);
  });
  if (int64_t* count = adamw_saturated(terms)) *count += saturated;
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("gradient_norm", norm_cpu);
  library.impl("adamw_step", step_cpu);
}

}  // namespace fathom::kernels
