// fathom::adamw_step and fathom::gradient_norm on a GPU: their table, checks and registration.
#include "cuda/adamw_step.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"
#include "kernels/adamw_lists.h"

namespace fathom::cuda {
namespace {

constexpr const char* kAdamW = "adamw_step";

/// Whether four elements may be read at once; a half of 16 bytes does for those of 16 bits.
bool takes_vectors(std::initializer_list<at::Tensor> tensors) {
  return std::all_of(tensors.begin(), tensors.end(),
                     [](const at::Tensor& x) { return !x.defined() || are_aligned16({x.const_data_ptr()}); });
}

AdamWTensor describe(const kernels::AdamWLists& lists, size_t i) {
  const at::Tensor &parameter = lists.parameters[i], &gradient = lists.gradients[i], &first = lists.first[i],
                   &second = lists.second[i], &average = lists.averages[i], &copy = lists.copies[i];
  return {.parameter = parameter.mutable_data_ptr(),
          .gradient = gradient.const_data_ptr(),
          .first = first.mutable_data_ptr(),
          .second = second.mutable_data_ptr(),
          .average = average.defined() ? average.mutable_data_ptr() : nullptr,
          .copy = copy.defined() ? copy.mutable_data_ptr() : nullptr,
          .learning_rate_scale = lists.learning_rate_scales[i],
          .weight_decay = lists.weight_decays[i],
          .gradient_type = element_type_of(gradient, kAdamW),
          .copy_type = copy.defined() ? element_type_of(copy, kAdamW) : ElementType::kHalf,
          .is_aligned = takes_vectors({parameter, first, second, average, copy}),
          .gradient_is_aligned = takes_vectors({gradient})};
}

/// uint8 on the device: an AdamWTensor a parameter, then all AdamWChunks.
at::Tensor adamw_table(at::TensorList tensors, at::ArrayRef<double> rates) {
  const kernels::AdamWLists lists = kernels::adamw_lists(tensors, rates);
  const c10::cuda::CUDAGuard guard(lists.parameters[0].device());
  std::vector<AdamWTensor> described;
  std::vector<AdamWChunk> chunks;
  for (size_t i = 0; i < lists.parameters.size(); ++i) {
    described.push_back(describe(lists, i));
    const int64_t size = lists.parameters[i].numel();
    for (int64_t begin = 0; begin < size; begin += kAdamWChunkSize)
      chunks.push_back({static_cast<int64_t>(i), begin, std::min(size, begin + kAdamWChunkSize)});
  }
  const size_t head = described.size() * sizeof(AdamWTensor), tail = chunks.size() * sizeof(AdamWChunk);
  const at::Tensor table = at::empty({static_cast<int64_t>(head + tail)}, at::kByte);
  auto* to = static_cast<uint8_t*>(table.mutable_data_ptr());
  std::memcpy(to, described.data(), head);
  if (tail > 0) std::memcpy(to + head, chunks.data(), tail);
  return table.to(lists.parameters[0].device());
}

/// `count`: of the tensors in the table.
AdamWTableArgs table_args(const at::Tensor& table, size_t count) {
  const auto* from = static_cast<const uint8_t*>(table.const_data_ptr());
  const size_t head = count * sizeof(AdamWTensor), bytes = static_cast<size_t>(table.numel());
  FATHOM_CHECK(bytes >= head, "[adamw_step] expected a table of {} parameters, got {} bytes", count, bytes);
  return {.tensors = reinterpret_cast<const AdamWTensor*>(from),
          .chunks = reinterpret_cast<const AdamWChunk*>(from + head),
          .num_chunks = static_cast<int64_t>((bytes - head) / sizeof(AdamWChunk))};
}

at::Tensor gradient_norm(at::TensorList gradients, const std::optional<at::Tensor>& divisor,
                         const at::Tensor& table_in) {
  const c10::cuda::CUDAGuard guard(table_in.device());
  const AdamWTableArgs table = table_args(table_in, gradients.size());
  const auto options = table_in.options().dtype(at::kDouble);
  const at::Tensor partial = at::empty({table.num_chunks}, options), norm = at::empty({}, options);
  const GradientNormArgs args = {.table = table,
                                 .divisor = divisor ? divisor->const_data_ptr<float>() : nullptr,
                                 .partial = partial.mutable_data_ptr<double>(),
                                 .norm = norm.mutable_data_ptr<double>()};
  C10_CUDA_CHECK(launch_gradient_norm(args, c10::cuda::getCurrentCUDAStream()));
  return norm;
}

void adamw_step(at::TensorList tensors, at::TensorList scalars_in, const at::Tensor& table,
                at::ArrayRef<double> rates, at::ArrayRef<double> settings) {
  const c10::cuda::CUDAGuard guard(table.device());
  const at::Tensor scalars =
      at::empty({static_cast<int64_t>(sizeof(kernels::AdamWScalars))}, table.options());
  const kernels::AdamWTerms terms = kernels::adamw_terms(scalars_in);
  const AdamWStepArgs args = {
      .table = table_args(table, kernels::adamw_lists(tensors, rates).parameters.size()),
      .pointers = kernels::adamw_pointers(terms),
      .settings = kernels::adamw_settings(settings),
      .scalars = static_cast<kernels::AdamWScalars*>(scalars.mutable_data_ptr()),
      .saturated = kernels::adamw_saturated(terms)};
  C10_CUDA_CHECK(launch_adamw_step(args, c10::cuda::getCurrentCUDAStream()));
}

}  // namespace

void register_adamw_step(torch::Library& library) {
  library.impl("adamw_table", adamw_table);
  library.impl("gradient_norm", gradient_norm);
  library.impl("adamw_step", adamw_step);
}

}  // namespace fathom::cuda
