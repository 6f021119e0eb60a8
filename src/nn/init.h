// Initial weights: a pure function of (seed, parameter name), so they depend on no order, rank or device.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <string>

namespace fathom {

/// Gives values to the parameters of one module. Parameters are named as in the module.
class ParameterInit {
 public:
  ParameterInit(torch::nn::Module& module, std::string prefix, int64_t seed);
  void normal(const std::string& name, double deviation);
  void constant(const std::string& name, double value);
  void values(const std::string& name, const at::Tensor& value);

 private:
  torch::nn::Module& module_;
  std::string prefix_;
  int64_t seed_;
};

/// A module with parameters of its own (not only of its children) says how they begin.
class HasInitialValues {
 public:
  virtual ~HasInitialValues() = default;
  virtual void initialise(ParameterInit& init) const = 0;
};

/// Fills every parameter of `module`. Errors (kInternal): a parameter whose module is no HasInitialValues.
void init_parameters(torch::nn::Module& module, int64_t seed);

}  // namespace fathom
