#include "nn/pair_blocks.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/error.h"

namespace fathom {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// How the matrix is cut, and what computes a part of it.
struct Plan : torch::CustomClassHolder {
  PairBlock block;
  PairBlockSize size;
  int64_t num_row_tensors = 0;

  /// Calls `visit(row, rows, column, columns)` for the first row and column of each block and their number.
  template <typename Visit>
  void each(const variable_list& inputs, const Visit& visit) const {
    const int64_t rows = inputs.front().size(0), columns = inputs.back().size(0);
    for (int64_t row = 0; row < rows; row += size.rows)
      for (int64_t column = 0; column < columns; column += size.columns)
        visit(row, std::min(size.rows, rows - row), column, std::min(size.columns, columns - column));
  }

  bool is_row(size_t input) const { return static_cast<int64_t>(input) < num_row_tensors; }

  at::Tensor compute(const variable_list& slices) const {
    const auto border = slices.begin() + num_row_tensors;
    return block({slices.begin(), border}, {border, slices.end()});
  }
};

struct PairBlocksFunction : torch::autograd::Function<PairBlocksFunction> {
  static at::Tensor forward(AutogradContext* context, const c10::intrusive_ptr<Plan>& plan,
                            at::TensorList tensors) {
    const variable_list inputs = tensors.vec();
    context->save_for_backward(inputs);
    context->saved_data["plan"] = c10::IValue::make_capsule(plan);
    at::Tensor whole_RC;
    plan->each(inputs, [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
      variable_list slices;
      for (size_t i = 0; i < inputs.size(); ++i)
        slices.push_back(plan->is_row(i) ? inputs[i].narrow(0, row, rows)
                                         : inputs[i].narrow(0, column, columns));
      const at::Tensor part = plan->compute(slices);
      if (!whole_RC.defined())
        whole_RC = at::empty({inputs.front().size(0), inputs.back().size(0)}, part.options());
      whole_RC.narrow(0, row, rows).narrow(1, column, columns).copy_(part);
    });
    return whole_RC;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto holder = context->saved_data["plan"].toCapsule();
    const auto* plan = static_cast<const Plan*>(holder.get());
    const variable_list inputs = context->get_saved_variables();
    variable_list sums(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i)
      if (inputs[i].requires_grad()) sums[i] = at::zeros_like(inputs[i]);
    plan->each(inputs, [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
      variable_list slices, wanted, into;
      for (size_t i = 0; i < inputs.size(); ++i) {
        const auto cut = [&](const at::Tensor& x) {
          return plan->is_row(i) ? x.narrow(0, row, rows) : x.narrow(0, column, columns);
        };
        slices.push_back(cut(inputs[i].detach()));
        if (!sums[i].defined()) continue;
        slices.back().requires_grad_();
        wanted.push_back(slices.back());
        into.push_back(cut(sums[i]));
      }
      at::Tensor part;
      {
        const at::AutoGradMode enable(true);
        part = plan->compute(slices);
      }
      const auto found = torch::autograd::grad(
          {part}, wanted, {gradients[0].narrow(0, row, rows).narrow(1, column, columns)},
          /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/true);
      for (size_t k = 0; k < found.size(); ++k)
        if (found[k].defined()) into[k].add_(found[k]);
    });
    variable_list result = {at::Tensor()};
    result.insert(result.end(), sums.begin(), sums.end());
    return result;
  }
};

}  // namespace

at::Tensor pair_blocks(const PairBlock& block, const std::vector<at::Tensor>& rows,
                       const std::vector<at::Tensor>& columns, const PairBlockSize& size) {
  FATHOM_CHECK(!rows.empty() && !columns.empty() && size.rows >= 1 && size.columns >= 1,
               "[pair_blocks] expected rows, columns and blocks of at least one of each");
  if (rows.front().size(0) <= size.rows && columns.front().size(0) <= size.columns)
    return block(rows, columns);
  auto plan = c10::make_intrusive<Plan>();
  plan->block = block;
  plan->size = size;
  plan->num_row_tensors = static_cast<int64_t>(rows.size());
  variable_list all = rows;
  all.insert(all.end(), columns.begin(), columns.end());
  return PairBlocksFunction::apply(plan, at::TensorList(all));
}

}  // namespace fathom
