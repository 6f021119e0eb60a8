// How `fathom::adamw_step` takes its lists, since a schema has no structs.
#pragma once

#include "base/error.h"
#include "kernels/adamw_step.h"

namespace fathom::kernels {

/// Views into flat lists: `tensors` holds six parts, `rates` two, of one entry a parameter.
struct AdamWLists {
  at::TensorList parameters, gradients, first, second, averages, copies;
  at::ArrayRef<double> learning_rate_scales, weight_decays;
};

inline AdamWLists adamw_lists(at::TensorList tensors, at::ArrayRef<double> rates) {
  const size_t count = rates.size() / 2;
  FATHOM_CHECK(rates.size() == 2 * count && tensors.size() == 6 * count,
               "[adamw_step] expected six tensors and two rates a parameter, got {} and {}", tensors.size(),
               rates.size());
  const auto part = [&](size_t place) { return tensors.slice(place * count, count); };
  return {
      part(0), part(1), part(2), part(3), part(4), part(5), rates.slice(0, count), rates.slice(count, count)};
}

inline AdamWTerms adamw_terms(at::TensorList scalars) {
  FATHOM_CHECK(scalars.size() == 7, "[adamw_step] expected seven scalars, got {}", scalars.size());
  return {scalars[0], scalars[1], scalars[2], scalars[3], scalars[4], scalars[5], scalars[6]};
}

inline AdamWSettings adamw_settings(at::ArrayRef<double> settings) {
  FATHOM_CHECK(settings.size() == 4, "[adamw_step] expected four settings, got {}", settings.size());
  return {settings[0], settings[1], settings[2], settings[3]};
}

/// REQUIRES scalars of the types that `adamw_step` brings them to.
inline AdamWScalarPointers adamw_pointers(const AdamWTerms& terms) {
  const auto read = []<typename T>(const at::Tensor& x, T) -> const T* {
    return x.defined() ? x.const_data_ptr<T>() : nullptr;
  };
  return {terms.step.mutable_data_ptr<float>(), read(terms.learning_rate, double{}),
          read(terms.average_weight, double{}), read(terms.norm, double{}),
          read(terms.divisor, float{}),         read(terms.skip, float{})};
}

/// Where copies' elements beyond float16 are counted; or null.
inline int64_t* adamw_saturated(const AdamWTerms& terms) {
  return terms.saturated.defined() ? terms.saturated.mutable_data_ptr<int64_t>() : nullptr;
}

}  // namespace fathom::kernels
