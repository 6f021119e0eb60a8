#include "nn/checkpointing.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/pass_learns.h"

namespace fathom {
namespace {

using Forward = std::function<at::Tensor(const at::Tensor&)>;
using torch::autograd::variable_list;

/// Carries the function to compute again from the forward to the backward pass.
struct Recompute : torch::CustomClassHolder {
  explicit Recompute(Forward f) : forward(std::move(f)) {}
  Forward forward;
};

struct CheckpointFunction : torch::autograd::Function<CheckpointFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const Forward& forward,
                            const at::Tensor& x, at::TensorList parameters) {
    variable_list saved = {x};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    context->save_for_backward(saved);
    context->saved_data["recompute"] = c10::IValue::make_capsule(c10::make_intrusive<Recompute>(forward));
    const kernels::TakenAgain again;
    return forward(x);
  }

  static variable_list backward(torch::autograd::AutogradContext* context, const variable_list& grads) {
    auto saved = context->get_saved_variables();
    const bool needs_x = saved[0].requires_grad();
    saved[0] = saved[0].detach().requires_grad_(needs_x);
    at::Tensor y;
    {
      at::AutoGradMode enable(true);
      const auto holder = context->saved_data["recompute"].toCapsule();
      y = static_cast<Recompute*>(holder.get())->forward(saved[0]);
    }
    // A layer that skips everything hands its input on.
    if (!y.requires_grad()) return variable_list(1 + saved.size());
    variable_list wanted;
    for (const auto& tensor : saved)
      if (tensor.requires_grad()) wanted.push_back(tensor);
    const auto found = torch::autograd::grad({y}, wanted, grads, /*retain_graph=*/false,
                                             /*create_graph=*/false, /*allow_unused=*/true);
    variable_list result = {at::Tensor()};
    auto next = found.begin();
    for (const auto& tensor : saved) result.push_back(tensor.requires_grad() ? *next++ : at::Tensor());
    return result;
  }
};

}  // namespace

at::Tensor checkpoint(const torch::nn::Module& module, const Forward& forward, const at::Tensor& x) {
  if (!at::GradMode::is_enabled()) return forward(x);
  const auto parameters = module.parameters();
  return CheckpointFunction::apply(forward, x, at::TensorList(parameters));
}

}  // namespace fathom
