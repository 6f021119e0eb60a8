#include "train/task/contrastive.h"

#include <torch/torch.h>

#include <utility>

#include "base/error.h"
#include "kernels/pass_learns.h"
#include "models/model_folder.h"
#include "nn/init.h"
#include "tensor/random_keys.h"
#include "train/losses/contrastive_losses.h"
#include "train/task/contrastive_flops.h"
#include "train/task/module_parameters.h"

namespace fathom {

ContrastiveTask::ContrastiveTask(Setup setup) : setup_(std::move(setup)) {
  const at::Tensor like = setup_.model->parameters().front();
  const DualTowerConfig& model = setup_.model->config();
  const auto place = [&](torch::nn::Module& module) {
    init_parameters(module, setup_.seed);
    module.to(like.device(), like.scalar_type());
  };
  if (setup_.config.view_weight > 0) {
    view_head_ = ViewHead(model.vision.output_dim());
    place(*view_head_);
  }
  if (setup_.config.word_weight > 0) {
    word_head_ = Linear(LinearOptions{.in = model.vision.output_dim(), .out = model.text.vocab_size});
    place(*word_head_);
    word_targets_ = std::make_unique<WordTargets>(WordTargets::Setup{
        .vocab_size = model.text.vocab_size, .marks = setup_.text_marks, .device = like.device()});
  }
  if (setup_.config.localization > 0) {
    location_head_ = LocationHead(model.vision.output_dim());
    place(*location_head_);
  }
  if (setup_.config.mixup > 0) {
    FATHOM_CHECK(!setup_.missing, "[contrastive] expected every modality in every sample, to be mixed");
    mixing_ = std::make_unique<PictureMixing>(PictureMixing::Setup{.alpha = setup_.config.mixup,
                                                                   .cutmix_share = setup_.config.cutmix_share,
                                                                   .mix_share = setup_.config.mix_share,
                                                                   .device = like.device()});
  }
  if (!setup_.teachers.empty()) {
    FATHOM_CHECK(!setup_.missing && !model.audio_tower,
                 "[contrastive] expected a picture and a text in every sample, for teachers");
    teachers_ = std::make_shared<Teachers>(std::move(setup_.teachers));
    if (setup_.config.distillation.embedding_weight > 0) {
      teacher_heads_ = TeacherHeads(model.embed_dim, teachers_->shapes());
      place(*teacher_heads_);
    }
  }
  if (setup_.config.reversal > 0) {
    discriminator_ = ModalityDiscriminator(model.embed_dim, model.audio_tower ? 3 : 2);
    place(*discriminator_);
  }
  {
    const torch::NoGradGuard no_grad;
    for (const at::Tensor& centre_D : setup_.model->centres()) centre_D.zero_();
  }
  objective_ = std::make_unique<ContrastiveObjective>(
      ContrastiveObjective::Setup{.model = setup_.model,
                                  .config = setup_.config,
                                  .discriminator = discriminator_,
                                  .hard_negatives = setup_.hard_negatives,
                                  .teachers = teachers_});
}

NamedParameters ContrastiveTask::parameters() const {
  NamedParameters all = module_parameters(*setup_.model);
  const auto add = [&](const char* prefix, const torch::nn::Module& module) {
    for (auto& [name, parameter] : module_parameters(module)) all.emplace_back(prefix + name, parameter);
  };
  if (view_head_) add("view_head.", *view_head_);
  if (word_head_) add("word_head.", *word_head_);
  if (location_head_) add("location_head.", *location_head_);
  if (teacher_heads_) add("teacher_heads.", *teacher_heads_);
  if (discriminator_) add("discriminator.", *discriminator_);
  return all;
}

/// B samples, R rows of each of one modality, of which N rows are of samples that have it.
struct ContrastiveTask::Rows {
  at::Tensor input;      ///< pictures, tokens or spectrograms; only those that are there
  at::Tensor length;     ///< tokens or frames of each; undefined for pictures
  at::Tensor present_B;  ///< bool; undefined where nothing may be missing
  at::Tensor place_N;    ///< int64: where each row stands among all R·B; undefined: in their order
  int64_t total = 0;     ///< R·B
  MixedPictures mixed;   ///< undefined where nothing is mixed
  bool stand_in =
      false;  ///< nobody has it: one row of nothing, so that every rank's graph has the same parts
  ForwardContext forward;

  /// Each of N rows at its place among all, zeros elsewhere.
  at::Tensor spread(const at::Tensor& x) const;
};

at::Tensor ContrastiveTask::Rows::spread(const at::Tensor& x) const {
  if (!x.defined() || !place_N.defined()) return x;
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[0] = total;
  return at::zeros(sizes, x.options()).index_copy(0, place_N, stand_in ? x * 0 : x);
}

ContrastiveTask::Rows ContrastiveTask::rows_of(const MicroBatch& micro_batch, Modality modality) const {
  const Batch& batch = micro_batch.batch;
  const DualTowerConfig& model = setup_.model->config();
  Rows rows{.forward = micro_batch.forward};
  at::Tensor has_B;
  int64_t each = 1;
  const auto empty = [&](at::IntArrayRef sizes, at::ScalarType type) {
    return at::zeros(sizes, at::TensorOptions().dtype(type).device(batch.index_B.device()));
  };
  if (modality == Modality::kImage) {
    rows.input = batch.image_BCHW;
    if (mixing_ && rows.forward.drops()) {
      rows.mixed = mixing_->mix(batch.image_BCHW, rows.forward.key_B);
      rows.input = rows.mixed.image_NCHW;
    }
    has_B = batch.has_image_B;
    each = setup_.views_per_image;
  } else if (modality == Modality::kText) {
    rows.input = batch.tokens_BT;
    rows.length = batch.length_B;
    has_B = batch.has_text_B;
    each = setup_.captions_per_image;
  } else {
    rows.input = batch.mel_BFS;
    rows.length = batch.frames_B;
    has_B = batch.has_sound_B;
  }
  if (rows.input.defined()) each = rows.input.size(0) / batch.size();
  rows.total = each * batch.size();
  if (!setup_.missing) {
    FATHOM_CHECK(rows.input.defined() && !has_B.defined(),
                 "[contrastive] expected every modality of the model in every sample");
  } else if (!rows.input.defined()) {
    rows.present_B = empty({batch.size()}, at::kBool);
    rows.place_N = empty({0}, at::kLong);
  } else if (has_B.defined()) {
    rows.present_B = has_B;
    rows.place_N = has_B.repeat_interleave(each).nonzero().squeeze(1);
  } else {
    rows.present_B = empty({batch.size()}, at::kBool).logical_not();
  }
  if (each > 1 && rows.forward.key_B.defined()) rows.forward.key_B = keys_of_rows(rows.forward.key_B, each);
  rows.forward.sample_share /= static_cast<double>(each);
  if (!rows.place_N.defined()) return rows;
  rows.stand_in = rows.place_N.size(0) == 0;
  const auto take = [&](at::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.index_select(0, rows.place_N);
  };
  if (rows.stand_in) {
    const int64_t side = model.vision.image_size;
    const at::ScalarType type = setup_.model->parameters().front().scalar_type();
    rows.input = modality == Modality::kImage  ? empty({1, 3, side, side}, type)
                 : modality == Modality::kText ? empty({1, 1}, at::kLong)
                                               : empty({1, model.audio.bands, 1}, at::kFloat);
    rows.length = modality == Modality::kImage ? at::Tensor() : at::ones({1}, batch.index_B.options());
    rows.place_N = empty({1}, at::kLong);
    rows.forward.key_B = at::Tensor();
    rows.forward.sample_share = 0;
  } else {
    take(rows.input);
    take(rows.length);
    take(rows.forward.key_B);
  }
  return rows;
}

ModalityRows ContrastiveTask::encode(const Rows& rows, Modality modality, at::Tensor* region_NPD) {
  ModalityRows found{.modality = modality, .present_B = rows.present_B};
  if (modality == Modality::kImage) {
    *region_NPD = setup_.model->vision()->features(rows.input, rows.forward);
    found.side = setup_.model->encode_regions(*region_NPD, rows.forward);
  } else if (modality == Modality::kText) {
    found.side = setup_.model->encode_text(rows.input, rows.length, rows.forward);
  } else {
    found.side = setup_.model->encode_sound(rows.input, rows.length, rows.forward);
  }
  found.side.whole_ND = rows.spread(found.side.whole_ND);
  found.side.key_NSD = rows.spread(found.side.key_NSD);
  found.side.value_NSD = rows.spread(found.side.value_NSD);
  if (found.side.length_N.defined() && rows.place_N.defined()) {
    const at::Tensor one_M = at::ones({rows.total}, found.side.length_N.options());
    found.side.length_N = one_M.index_copy(0, rows.place_N, found.side.length_N);
  }
  return found;
}

void ContrastiveTask::apply_heads(const at::Tensor& region_NPD, const Rows& rows, const Batch& batch,
                                  ContrastiveRows& local) {
  if (view_head_) local.view_VD = rows.spread(view_head_->forward(region_NPD.mean(1)));
  if (word_head_) {
    const int64_t views = rows.total / batch.size();
    const at::Tensor word_BW = word_targets_->words(batch);
    at::Tensor word_NW = word_BW.repeat_interleave(views, 0);
    if (rows.place_N.defined()) word_NW = word_NW.index_select(0, rows.place_N);
    const at::Tensor pooled_ND = region_NPD.mean(1).to(word_head_->weight().scalar_type());
    const at::Tensor logits_NW = word_head_->forward(pooled_ND);
    local.word_loss_V = rows.spread(word_targets_->loss(logits_NW, word_NW));
    if (rows.mixed.share_B.defined()) {
      const at::Tensor other_NW = word_BW.index_select(0, rows.mixed.partner_B).repeat_interleave(views, 0);
      local.word_loss_V = mix_rows(local.word_loss_V, word_targets_->loss(logits_NW, other_NW),
                                   rows.mixed.share_B.repeat_interleave(views));
    }
  }
  if (location_head_) {
    const at::Tensor key_N = rows.stand_in ? rows.place_N : rows.forward.key_B;
    local.location_loss_V =
        rows.spread(location_head_->loss(region_NPD, key_N, setup_.config.localization_pairs, rows.forward));
  }
}

ContrastiveRows ContrastiveTask::embed(const MicroBatch& micro_batch, const std::vector<TaughtRows>* taught) {
  ContrastiveRows local{.owner_B = micro_batch.batch.index_B};
  std::vector<Modality> modalities{Modality::kImage, Modality::kText};
  if (setup_.model->config().audio_tower) modalities.push_back(Modality::kSound);
  MixedPictures mixed;
  Rows pictures;
  for (const Modality modality : modalities) {
    const Rows rows = rows_of(micro_batch, modality);
    at::Tensor region_NPD;
    local.modalities.push_back(encode(rows, modality, &region_NPD));
    if (modality == Modality::kImage) {
      apply_heads(region_NPD, rows, micro_batch.batch, local);
      mixed = rows.mixed;
      pictures = rows;
    }
    if (modality != Modality::kText) continue;
    if (teachers_) {
      local.taught =
          taught ? *taught : teachers_->embed(pictures.input, rows.input, rows.length, rows.forward);
      if (teacher_heads_)
        local.taught_loss_B = teacher_heads_->loss(local.of(Modality::kImage).side.whole_ND,
                                                   local.of(Modality::kText).side.whole_ND, local.taught,
                                                   local.owner_B.size(0));
    }
    local.caption_M = caption_ids(rows.input, rows.length);
    if (rows.place_N.defined()) {  // what no caption has, where there is none
      const at::Tensor none_M = at::full({rows.total}, kNobody, local.caption_M.options());
      local.caption_M = rows.stand_in ? none_M : none_M.index_copy(0, rows.place_N, local.caption_M);
    }
  }
  if (mixed.share_B.defined()) {
    const at::ScalarType type = local.of(Modality::kImage).side.whole_ND.scalar_type();
    local.mixed = note_mixture(mixed.share_B.to(type), mixed.partner_B, local.owner_B, local.caption_M);
  }
  return local;
}

at::Tensor ContrastiveTask::loss(const MicroBatch& micro_batch, const StepContext& step) {
  if (word_targets_) word_targets_->count({&micro_batch, 1}, step.collective);
  return objective_->loss(embed(micro_batch), step);
}

at::Tensor ContrastiveTask::forward_backward(std::span<const MicroBatch> micro_batches,
                                             const StepContext& step) {
  if (micro_batches.size() == 1) return Task::forward_backward(micro_batches, step);
  if (word_targets_) word_targets_->count(micro_batches, step.collective);
  std::vector<ContrastiveRows> parts;
  {
    const torch::NoGradGuard no_grad;
    const kernels::TakenAgain again;
    for (const MicroBatch& micro_batch : micro_batches) parts.push_back(embed(micro_batch));
  }
  ContrastiveRows whole = ContrastiveRows::join(parts);
  const std::vector<at::Tensor*> learned = whole.learned();
  for (at::Tensor* tensor : learned)
    if (tensor->defined()) tensor->requires_grad_();
  const at::Tensor loss = objective_->loss(whole, step);
  micro_batches.front().forward.scaled(loss).backward();

  std::vector<int64_t> row(learned.size(), 0);
  for (size_t m = 0; m < micro_batches.size(); ++m) {
    if (m + 1 == micro_batches.size()) step.expect_last_backward();
    ContrastiveRows part = embed(micro_batches[m], &parts[m].taught);
    const std::vector<at::Tensor*> outputs_of_part = part.learned();
    std::vector<at::Tensor> outputs, gradients;
    for (size_t i = 0; i < learned.size(); ++i) {
      const at::Tensor& output = *outputs_of_part[i];
      if (!output.defined()) continue;
      const int64_t start = std::exchange(row[i], row[i] + output.size(0));
      const at::Tensor& gradient = learned[i]->grad();
      if (!output.requires_grad() || !gradient.defined()) continue;  // of a frozen tower, or not in use
      outputs.push_back(output);
      const at::Tensor own = gradient.narrow(0, start, output.size(0));
      gradients.push_back(output.dim() < 3 ? own : own.narrow(1, 0, output.size(1)));
    }
    if (!outputs.empty()) torch::autograd::backward(outputs, gradients);
  }
  return loss.detach();
}

CentresInUse ContrastiveTask::centred() {
  const std::vector<at::Tensor> centres = setup_.model->centres();
  if (centres.empty() || !setup_.measure_centres) return {centres, centres};
  if (measured_centres_.empty()) measured_centres_ = setup_.measure_centres(setup_.model);
  return {centres, measured_centres_};
}

Metrics ContrastiveTask::evaluate() {
  if (!setup_.evaluate) return {};
  const CentresInUse in_use = centred();
  return setup_.evaluate(setup_.model);
}

void ContrastiveTask::after_step(const StepContext& step) {
  measured_centres_.clear();
  if (setup_.hard_negatives) setup_.hard_negatives->after_step(step);
}

TensorMap ContrastiveTask::state() const {
  TensorMap state;
  if (setup_.hard_negatives) state = setup_.hard_negatives->state();
  if (word_targets_) state.merge(word_targets_->state());
  if (teachers_) state.merge(teachers_->state());
  return state;
}

void ContrastiveTask::load_state(const TensorMap& state) {
  // A run that goes on with a bank or counts that it did not have begins with empty ones.
  if (setup_.hard_negatives) setup_.hard_negatives->load_state(state);
  if (word_targets_) word_targets_->load_state(state);
  if (teachers_) teachers_->check_state(state);
}

void ContrastiveTask::save_model(const std::string& folder, const Json& record) {
  const CentresInUse in_use = centred();
  save_model_folder(
      folder, setup_.model,
      {.tokenizer_json = setup_.tokenizer_json, .record = record, .adapter_base = setup_.adapter_base});
}

PixelStatistics ContrastiveTask::pixels() const {
  const ImagePreprocessing& preprocessing = setup_.model->config().vision.preprocessing;
  PixelStatistics pixels;
  for (size_t channel = 0; channel < 3; ++channel) {
    pixels.mean[channel] = preprocessing.mean[channel];
    pixels.deviation[channel] = preprocessing.deviation[channel];
  }
  return pixels;
}

double ContrastiveTask::flops_per_sample() const {
  return contrastive_flops(setup_.model->config(), setup_.config,
                           {.views = setup_.views_per_image,
                            .captions = setup_.captions_per_image,
                            .tokens = setup_.num_tokens,
                            .frames = setup_.num_frames},
                           teachers_ ? teachers_->shapes() : std::vector<DualTowerConfig>{});
}

}  // namespace fathom
