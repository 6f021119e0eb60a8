#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <map>
#include <tuple>

#include "kernels/adamw_lists.h"
#include "kernels/half_range.h"

namespace fathom::kernels::adamw_step_ref {
namespace {

/// Bool: nothing changes.
at::Tensor is_skipped(const AdamWTerms& terms) {
  at::Tensor skipped = at::zeros({}, terms.step.options().dtype(at::kBool));
  if (terms.norm.defined()) skipped = skipped.logical_or(terms.norm.isfinite().logical_not());
  if (terms.skip.defined()) skipped = skipped.logical_or(terms.skip.ne(0));
  return skipped;
}

/// Of the gradients, float32: what they are divided by and what clips them.
at::Tensor whole_divisor(const AdamWTerms& terms, double max_norm) {
  at::Tensor divisor = at::ones({}, terms.step.options().dtype(at::kDouble));
  if (terms.divisor.defined()) divisor = divisor * terms.divisor;
  if (terms.norm.defined() && max_norm > 0)
    divisor = divisor * ((terms.norm + 1e-6) / max_norm).clamp_min(1.0);
  return divisor.to(at::kFloat);
}

/// Parameters that LibTorch updates by one call.
struct EqualParameters {
  std::vector<at::Tensor> parameters, gradients, first, second, steps;
};

using Likeness = std::tuple<double, double, at::ScalarType>;  ///< scale of the learning rate, decay, type

std::map<Likeness, EqualParameters> group_equal(const AdamWLists& lists, const at::Tensor& step) {
  std::map<Likeness, EqualParameters> groups;
  for (size_t i = 0; i < lists.parameters.size(); ++i) {
    const at::Tensor& parameter = lists.parameters[i];
    if (parameter.numel() == 0) continue;
    const auto type = parameter.scalar_type();
    EqualParameters& group = groups[{lists.learning_rate_scales[i], lists.weight_decays[i], type}];
    group.parameters.push_back(parameter);
    // LibTorch's writes what it divided back.
    group.gradients.push_back(lists.gradients[i].to(type, /*non_blocking=*/false, /*copy=*/true));
    group.first.push_back(lists.first[i]);
    group.second.push_back(lists.second[i]);
    group.steps.push_back(step);
  }
  return groups;
}

/// Unless the step is skipped, in which nothing saturates.
void write_copy(const at::Tensor& parameter, const at::Tensor& copy, const at::Tensor& skipped,
                const at::Tensor& saturated) {
  at::Tensor held = parameter;
  if (copy.scalar_type() == at::kHalf) {
    held = parameter.clamp(-kLargestHalf, kLargestHalf);
    if (saturated.defined())
      saturated.add_(parameter.abs().gt(kLargestHalf).logical_and(skipped.logical_not()).sum());
  }
  copy.copy_(at::where(skipped, copy.to(parameter.scalar_type()), held));
}

}  // namespace

at::Tensor norm(at::TensorList gradients, const std::optional<at::Tensor>& divisor, const at::Tensor&) {
  const at::Tensor norm = at::linalg_vector_norm(at::stack(at::_foreach_norm(gradients, 2, at::kDouble)));
  return divisor ? norm / *divisor : norm;
}

void apply_flat(at::TensorList tensors, at::TensorList scalars, const at::Tensor&, at::ArrayRef<double> rates,
                at::ArrayRef<double> settings_in) {
  const AdamWLists lists = adamw_lists(tensors, rates);
  const AdamWTerms terms = adamw_terms(scalars);
  const AdamWSettings settings = adamw_settings(settings_in);
  const at::Tensor skipped = is_skipped(terms), found_inf = skipped.to(at::kFloat),
                   divisor = whole_divisor(terms, settings.max_norm);
  terms.step.add_(1 - found_inf);
  for (auto& [likeness, group] : group_equal(lists, terms.step)) {
    const auto& [scale, decay, type] = likeness;
    // LibTorch's CUDA kernel reads float32; the CPU's takes a double, without loss.
    const at::Tensor learning_rate =
        (terms.learning_rate * scale).to(terms.step.is_cpu() ? at::kDouble : at::kFloat);
    at::_fused_adamw_(group.parameters, group.gradients, group.first, group.second, /*max_exp_avg_sqs=*/{},
                      group.steps, learning_rate, settings.beta1, settings.beta2, decay, settings.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, divisor, found_inf);
  }
  for (size_t i = 0; i < lists.parameters.size(); ++i) {
    const at::Tensor &parameter = lists.parameters[i], &average = lists.averages[i], &copy = lists.copies[i];
    if (average.defined())
      average.lerp_(parameter, (terms.average_weight * (1 - found_inf)).to(average.scalar_type()));
    if (copy.defined()) write_copy(parameter, copy, skipped, terms.saturated);
  }
}

}  // namespace fathom::kernels::adamw_step_ref
