// Lists of parameters for one update: odd sizes, every type, with and without what may be absent.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/adamw_step.h"

namespace fathom::testing {

/// Type of the parameter and of its gradient.
using AdamWTypes = std::pair<at::ScalarType, at::ScalarType>;

inline void add_parameter(kernels::AdamWTensors& tensors, int64_t size, AdamWTypes types) {
  const auto i = static_cast<int64_t>(tensors.parameters.size());
  const at::Tensor parameter = at::randn({size}, types.first);
  // Behind others, as in a bucket: at a multiple of 16 bytes or not.
  const at::Tensor bucket = at::randn({size + 3}).to(types.second);
  tensors.parameters.push_back(parameter);
  tensors.gradients.push_back(bucket.narrow(0, i % 2 == 0 ? 0 : 3, size));
  tensors.first.push_back(at::randn({size}, types.first) * 0.1);
  tensors.second.push_back(at::rand({size}, types.first) * 0.1);
  tensors.averages.push_back(i % 3 == 0 ? at::Tensor() : at::randn({size}, types.first));
  tensors.copies.push_back(i % 3 == 1 ? at::Tensor() : parameter.to(i % 3 == 0 ? at::kHalf : at::kBFloat16));
  tensors.learning_rate_scales.push_back(i % 4 == 0 ? 0.5 : 1.0);
  tensors.weight_decays.push_back(i % 5 < 2 ? 0.0 : 0.3);
}

/// Of each type, one of no element and sizes around those of vectors and chunks.
inline kernels::AdamWTensors odd_parameters() {
  kernels::AdamWTensors tensors;
  for (const AdamWTypes& types : {AdamWTypes{at::kFloat, at::kFloat},
                                  {at::kFloat, at::kHalf},
                                  {at::kFloat, at::kBFloat16},
                                  {at::kDouble, at::kDouble}})
    for (const int64_t size : {0, 1, 7, 1023, 4096 + 3, 40001}) add_parameter(tensors, size, types);
  return tensors;
}

inline std::vector<at::Tensor> copies_on(const std::vector<at::Tensor>& list, at::Device device) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& x : list) {
    at::Tensor copy;
    if (x.defined()) {
      // As far from a multiple of 16 bytes as it was.
      const int64_t offset = x.storage_offset();
      const at::Tensor room = at::empty({x.numel() + offset}, x.options().device(device));
      copy = room.narrow(0, offset, x.numel()).copy_(x);
    }
    result.push_back(copy);
  }
  return result;
}

inline kernels::AdamWTensors copies_on(const kernels::AdamWTensors& tensors, at::Device device) {
  return {copies_on(tensors.parameters, device), copies_on(tensors.gradients, device),
          copies_on(tensors.first, device),      copies_on(tensors.second, device),
          copies_on(tensors.averages, device),   copies_on(tensors.copies, device),
          tensors.learning_rate_scales,          tensors.weight_decays};
}

inline kernels::AdamWTerms first_terms(at::Device device, double learning_rate = 0.01) {
  const auto options = at::TensorOptions(device);
  return {.step = at::full({}, 3, options.dtype(at::kFloat)),
          .learning_rate = at::full({}, learning_rate, options.dtype(at::kDouble)),
          .average_weight = at::full({}, 0.25, options.dtype(at::kDouble))};
}

/// Of all lists that an update changes, those of one kind behind each other.
inline std::vector<at::Tensor> changed_lists(const kernels::AdamWTensors& tensors) {
  std::vector<at::Tensor> result;
  for (const auto* list :
       {&tensors.parameters, &tensors.first, &tensors.second, &tensors.averages, &tensors.copies})
    for (const at::Tensor& x : *list)
      if (x.defined() && x.numel() > 0) result.push_back(x);
  return result;
}

}  // namespace fathom::testing
