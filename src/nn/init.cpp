#include "nn/init.h"

#include <ATen/CPUGeneratorImpl.h>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"

namespace fathom {

ParameterInit::ParameterInit(torch::nn::Module& module, std::string prefix, int64_t seed)
    : module_(module), prefix_(std::move(prefix)), seed_(seed) {}

void ParameterInit::normal(const std::string& name, double deviation) {
  at::Tensor parameter = module_.named_parameters(/*recurse=*/false)[name];
  const std::string full = prefix_.empty() ? name : prefix_ + "." + name;
  const uint64_t key = checksum64(std::as_bytes(std::span(full)));
  auto generator = at::detail::createCPUGenerator(mix_seed({static_cast<uint64_t>(seed_), key}));
  // Drawn as float32 on the CPU whatever the parameter's type and device, so that the values agree.
  parameter.copy_(at::empty(parameter.sizes(), at::kFloat).normal_(0.0, deviation, generator));
}

void ParameterInit::constant(const std::string& name, double value) {
  module_.named_parameters(/*recurse=*/false)[name].fill_(value);
}

void ParameterInit::values(const std::string& name, const at::Tensor& value) {
  module_.named_parameters(/*recurse=*/false)[name].copy_(value);
}

void init_parameters(torch::nn::Module& module, int64_t seed) {
  at::NoGradGuard no_grad;
  for (const auto& item : module.named_modules()) {
    if (item.value()->parameters(/*recurse=*/false).empty()) continue;
    const auto* owner = dynamic_cast<const HasInitialValues*>(item.value().get());
    FATHOM_CHECK(owner != nullptr, "[init_parameters] {} says nothing of its initial values", item.key());
    ParameterInit init(*item.value(), item.key(), seed);
    owner->initialise(init);
  }
}

}  // namespace fathom
