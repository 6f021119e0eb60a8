#include "kernels/adamw_step.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <utility>

#include "kernels/adamw_lists.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

/// What the op takes.
struct FlatAdamW {
  std::vector<at::Tensor> tensors;
  std::vector<double> rates;
};

bool is_narrow(at::ScalarType type) {
  return type == at::kHalf || type == at::kBFloat16;
}

void check_parameter(const AdamWLists& lists, size_t i) {
  const at::Tensor& parameter = lists.parameters[i];
  const auto type = parameter.scalar_type();
  const auto fits = [&](const at::Tensor& x, bool has_type) {
    return has_type && x.is_contiguous() && x.numel() == parameter.numel() &&
           x.device() == parameter.device();
  };
  const auto fits_or_lacks = [&](const at::Tensor& x, bool narrow) {
    return !x.defined() || fits(x, narrow ? is_narrow(x.scalar_type()) : x.scalar_type() == type);
  };
  const at::Tensor& gradient = lists.gradients[i];
  FATHOM_CHECK(gradient.defined(), "[adamw_step] parameter {} has no gradient", i);
  const auto gradient_type = gradient.scalar_type();
  FATHOM_CHECK(
      (type == at::kFloat || type == at::kDouble) && parameter.is_contiguous() &&
          fits(gradient, gradient_type == type || (type == at::kFloat && is_narrow(gradient_type))) &&
          fits(lists.first[i], lists.first[i].scalar_type() == type) &&
          fits(lists.second[i], lists.second[i].scalar_type() == type) &&
          fits_or_lacks(lists.averages[i], false) && fits_or_lacks(lists.copies[i], true),
      "[adamw_step] parameter {}: expected dense tensors of one size and device and of fitting types", i);
}

FlatAdamW flatten(const AdamWTensors& tensors) {
  const size_t count = tensors.parameters.size();
  FATHOM_CHECK(count > 0, "[adamw_step] expected at least one parameter");
  FlatAdamW flat;
  flat.tensors.reserve(6 * count);
  for (const auto* list : {&tensors.parameters, &tensors.gradients, &tensors.first, &tensors.second,
                           &tensors.averages, &tensors.copies})
    flat.tensors.insert(flat.tensors.end(), list->begin(), list->end());
  for (const auto* list : {&tensors.learning_rate_scales, &tensors.weight_decays})
    flat.rates.insert(flat.rates.end(), list->begin(), list->end());
  const AdamWLists lists = adamw_lists(flat.tensors, flat.rates);
  for (size_t i = 0; i < count; ++i) check_parameter(lists, i);
  return flat;
}

/// Of the type that kernels read.
at::Tensor scalar_of(const at::Tensor& x, at::ScalarType type, const AdamWTensors& tensors) {
  if (!x.defined()) return x;
  const at::Device device = tensors.parameters[0].device();
  FATHOM_CHECK(x.numel() == 1 && x.device() == device, "[adamw_step] expected a number on {}, got {} on {}",
               device.str(), x.numel(), x.device().str());
  return x.to(type);
}

std::vector<at::Tensor> scalars_of(const AdamWTerms& terms, const AdamWTensors& tensors) {
  const bool averages = std::any_of(tensors.averages.begin(), tensors.averages.end(),
                                    [](const at::Tensor& average) { return average.defined(); });
  FATHOM_CHECK(terms.step.defined() && terms.step.scalar_type() == at::kFloat &&
                   terms.learning_rate.defined() && (terms.average_weight.defined() || !averages),
               "[adamw_step] expected a float32 count of steps, a learning rate, and a weight for averages");
  FATHOM_CHECK(!terms.saturated.defined() ||
                   (terms.saturated.scalar_type() == at::kLong && terms.saturated.numel() == 1 &&
                    terms.saturated.device() == tensors.parameters[0].device()),
               "[adamw_step] expected an int64 count of saturated casts on the parameters' device");
  return {terms.step,
          scalar_of(terms.learning_rate, at::kDouble, tensors),
          scalar_of(terms.average_weight, at::kDouble, tensors),
          scalar_of(terms.norm, at::kDouble, tensors),
          scalar_of(terms.divisor, at::kFloat, tensors),
          scalar_of(terms.skip, at::kFloat, tensors),
          terms.saturated};
}

/// For devices whose kernels read no table.
at::Tensor no_table(at::TensorList tensors, at::ArrayRef<double>) {
  return at::empty({0}, tensors[0].options().dtype(at::kByte));
}

/// Autograd then notices where a graph of before is used.
void mark_changed(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& x : tensors)
    if (x.defined()) x.unsafeGetTensorImpl()->bump_version();
}

}  // namespace

const at::Tensor& AdamWTable::of(at::TensorList tensors, at::ArrayRef<double> rates) {
  static const auto op = find_op<at::Tensor(at::TensorList, at::ArrayRef<double>)>("fathom::adamw_table");
  std::vector<Place> places;
  places.reserve(tensors.size());
  for (const at::Tensor& x : tensors)
    places.push_back(x.defined() ? Place{x.const_data_ptr(), x.numel(), x.scalar_type()} : Place{});
  if (!table_.defined() || places != places_ || !rates.equals(rates_)) {
    table_ = op.call(tensors, rates);
    places_ = std::move(places);
    rates_ = rates.vec();
  }
  return table_;
}

at::Tensor gradient_norm(const AdamWTensors& tensors, const at::Tensor& divisor, AdamWTable& table) {
  static const auto op =
      find_op<at::Tensor(at::TensorList, const std::optional<at::Tensor>&, const at::Tensor&)>(
          "fathom::gradient_norm");
  const at::AutoDispatchBelowADInplaceOrView below;
  const FlatAdamW flat = flatten(tensors);
  return op.call(tensors.gradients, optional(scalar_of(divisor, at::kFloat, tensors)),
                 table.of(flat.tensors, flat.rates));
}

void adamw_step(const AdamWTensors& tensors, const AdamWTerms& terms, const AdamWSettings& settings,
                AdamWTable& table) {
  static const auto op = find_op<void(at::TensorList, at::TensorList, const at::Tensor&, at::ArrayRef<double>,
                                      at::ArrayRef<double>)>("fathom::adamw_step");
  const at::AutoDispatchBelowADInplaceOrView below;
  const FlatAdamW flat = flatten(tensors);
  op.call(flat.tensors, scalars_of(terms, tensors), table.of(flat.tensors, flat.rates), flat.rates,
          {settings.beta1, settings.beta2, settings.epsilon, settings.max_norm});
  mark_changed(tensors.parameters);
  mark_changed(tensors.copies);
}

void adamw_step_ref::apply(const AdamWTensors& tensors, const AdamWTerms& terms,
                           const AdamWSettings& settings) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const FlatAdamW flat = flatten(tensors);
  apply_flat(flat.tensors, scalars_of(terms, tensors), at::Tensor(), flat.rates,
             {settings.beta1, settings.beta2, settings.epsilon, settings.max_norm});
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("adamw_table(Tensor[] tensors, float[] rates) -> Tensor");
  library.def("gradient_norm(Tensor[] gradients, Tensor? divisor, Tensor table) -> Tensor");
  library.def(
      "adamw_step(Tensor(a!)[] tensors, Tensor(b!)[] scalars, Tensor table, float[] rates, float[] settings) "
      "-> ()");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("adamw_table", no_table);
  library.impl("gradient_norm", adamw_step_ref::norm);
  library.impl("adamw_step", adamw_step_ref::apply_flat);
}

}  // namespace fathom::kernels
