#include "train/task/distillation.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "train/task/module_parameters.h"

namespace fathom {
namespace {

Linear make_head(int64_t in, int64_t out) {
  return Linear(LinearOptions{
      .in = in, .out = out, .bias = false, .init_deviation = 1.0 / std::sqrt(static_cast<double>(in))});
}

/// 1 − cosine of each row with its target of unit length, averaged over the rows of each sample.
at::Tensor distance_of_samples(const at::Tensor& x_ND, const at::Tensor& target_ND, int64_t samples) {
  const at::Tensor length_N = at::linalg_vector_norm(x_ND, 2, {1}).clamp_min(1e-12);
  return (1 - (x_ND * target_ND).sum(1) / length_N).view({samples, -1}).mean(1);
}

at::Tensor weights_checksum(const torch::nn::Module& model) {
  Checksum checksum;
  for (const auto& [name, parameter] : module_parameters(model)) {
    const at::Tensor weight = parameter.detach().to(at::kCPU).contiguous();
    checksum.update({static_cast<const std::byte*>(weight.const_data_ptr()), weight.nbytes()});
  }
  return at::full({}, static_cast<int64_t>(checksum.value()), at::kLong);
}

std::string teacher_key(size_t place) {
  return fmt::format("teacher.{}", place);
}

}  // namespace

void DistillationConfig::fields(Fields& f) {
  f("teachers", teachers,
    "folders of trained dual towers whose view of each batch is learned beside its labels; same tokenizer, "
    "same pictures");
  f("share", share, "part of each row's target that is the mean of what the teachers find similar (infonce)",
    {.low = 0, .high = 1});
  f("temperature", temperature,
    "divides the teachers' and the learner's logits where they are compared, so that more than the first "
    "counts",
    {.low = 0.01, .high = 100});
  f("embedding_weight", embedding_weight,
    "weight of 1 - cosine between a linear map of an embedding and each teacher's; 0 for none", {.low = 0});
}

void DistillationConfig::validate() const {
  const DistillationConfig none;
  if (!on() &&
      (share != none.share || temperature != none.temperature || embedding_weight != none.embedding_weight))
    fail(ErrorKind::kConfig, "teachers: not given, and nothing else here has an effect without them");
  if (on() && share == 0 && embedding_weight == 0)
    fail(ErrorKind::kConfig, "teachers: with share = 0 and embedding_weight = 0 nothing is learned of them");
}

Teachers::Teachers(std::vector<DualTower> models) {
  for (DualTower& model : models) {
    model->eval();
    for (at::Tensor& parameter : model->parameters()) parameter.set_requires_grad(false);
    teachers_.push_back({.model = std::move(model), .copies = nullptr});
  }
}

std::vector<TaughtRows> Teachers::embed(const at::Tensor& image_NCHW, const at::Tensor& tokens_MT,
                                        const at::Tensor& length_M, const ForwardContext& forward) {
  const torch::NoGradGuard no_grad;
  std::vector<TaughtRows> taught;
  for (auto& [model, copies] : teachers_) {
    if (forward.compute_dtype && !copies)
      copies = std::make_unique<kernels::WeightCopies>(model->parameters(), *forward.compute_dtype);
    const ForwardContext context{.compute_dtype = forward.compute_dtype,
                                 .copies = copies.get(),
                                 .settled = true,
                                 .waited = forward.waited};
    taught.push_back({.image_ND = model->embed_image(image_NCHW, context),
                      .text_MD = model->embed_text(tokens_MT, length_M, context)});
  }
  return taught;
}

at::Tensor Teachers::judge(const std::vector<TaughtRows>& own, Side row, const std::vector<TaughtRows>& all,
                           Side column, double temperature) const {
  const torch::NoGradGuard no_grad;
  at::Tensor sum_RC;
  for (size_t k = 0; k < teachers_.size(); ++k) {
    const at::Tensor scale = teachers_[k].model.ptr()->logit_scale() / temperature;
    const at::Tensor judged_RC = (at::mm(own[k].*row, (all[k].*column).t()) * scale).softmax(1);
    sum_RC = k == 0 ? judged_RC : sum_RC + judged_RC;
  }
  return sum_RC / static_cast<double>(teachers_.size());
}

TensorMap Teachers::state() const {
  TensorMap state;
  for (size_t i = 0; i < teachers_.size(); ++i) state[teacher_key(i)] = weights_checksum(*teachers_[i].model);
  return state;
}

void Teachers::check_state(const TensorMap& state) const {
  for (const auto& [key, checksum] : this->state())
    if (const auto former = state.find(key); former != state.end() && !former->second.equal(checksum))
      fail(ErrorKind::kCheckpoint,
           "contrastive.distillation.teachers: {} has other weights than when the run began", key);
}

std::vector<DualTowerConfig> Teachers::shapes() const {
  std::vector<DualTowerConfig> shapes;
  for (const Teacher& teacher : teachers_) shapes.push_back(teacher.model.ptr()->config());
  return shapes;
}

TeacherHeadsImpl::TeacherHeadsImpl(int64_t embed_dim, const std::vector<DualTowerConfig>& teachers) {
  for (size_t k = 0; k < teachers.size(); ++k) {
    const std::string number = std::to_string(k);
    image_.push_back(register_module("image" + number, make_head(embed_dim, teachers[k].embed_dim)));
    text_.push_back(register_module("text" + number, make_head(embed_dim, teachers[k].embed_dim)));
  }
}

at::Tensor TeacherHeadsImpl::loss(const at::Tensor& image_ND, const at::Tensor& text_MD,
                                  const std::vector<TaughtRows>& taught, int64_t samples) {
  at::Tensor sum_B;
  for (size_t k = 0; k < taught.size(); ++k) {
    const at::Tensor distance_B =
        distance_of_samples(image_[k]->forward(image_ND), taught[k].image_ND, samples) +
        distance_of_samples(text_[k]->forward(text_MD), taught[k].text_MD, samples);
    sum_B = k == 0 ? distance_B : sum_B + distance_B;
  }
  return sum_B / (2 * static_cast<double>(taught.size()));
}

}  // namespace fathom
