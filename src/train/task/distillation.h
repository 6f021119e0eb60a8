// What one dual tower learns from others: a batch's similarities and embeddings as they see them.
// N pictures (views), M texts of a micro-batch, B samples, D width.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "models/dual_tower/model.h"
#include "nn/linear.h"
#include "tensor/tensor_file.h"

namespace fathom {

struct DistillationConfig {
  std::vector<std::string> teachers;  ///< model folders; none: no distillation
  double share = 0.5;
  double temperature = 2.0;
  double embedding_weight = 4.0;

  bool on() const { return !teachers.empty(); }
  void fields(Fields& f);
  /// Errors (kConfig): settings that leave the teachers nothing to say.
  void validate() const;
};

/// One teacher's embeddings of unit length, without gradients.
struct TaughtRows {
  at::Tensor image_ND;
  at::Tensor text_MD;
};

/// Trained dual towers that see every micro-batch as the one that learns sees it, augmented and with words
/// hidden (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022), but
/// drop nothing. They never change.
class Teachers {
 public:
  /// `models`: on the device where batches will be, all with float32 or wider parameters.
  explicit Teachers(std::vector<DualTower> models);

  /// `forward`: the learner's, for its types.
  std::vector<TaughtRows> embed(const at::Tensor& image_NCHW, const at::Tensor& tokens_MT,
                                const at::Tensor& length_M, const ForwardContext& forward);
  using Side = at::Tensor TaughtRows::*;
  /// Of each of this rank's `row`s over all ranks' `column`s: the mean over teachers of
  /// softmax(similarity · the teacher's own scale ÷ `temperature`), [R, C].
  at::Tensor judge(const std::vector<TaughtRows>& own, Side row, const std::vector<TaughtRows>& all,
                   Side column, double temperature) const;

  std::vector<DualTowerConfig> shapes() const;

  /// A checksum of each teacher's weights, "teacher.0" and on.
  TensorMap state() const;
  /// Errors (kCheckpoint) where a teacher has other weights than the run's had. A run from before its state
  /// told them goes on unchecked.
  void check_state(const TensorMap& state) const;

 private:
  struct Teacher {
    DualTower model{nullptr};
    std::unique_ptr<kernels::WeightCopies> copies;  ///< in the type of activations; null: not asked for yet
  };
  std::vector<Teacher> teachers_;
};

/// For each teacher a linear map of pictures' and one of texts' embeddings to what it would have made of
/// them, thrown away after training.
class TeacherHeadsImpl : public torch::nn::Module {
 public:
  TeacherHeadsImpl(int64_t embed_dim, const std::vector<DualTowerConfig>& teachers);

  /// Of each of B samples, the mean over teachers of 1 − cosine between what is mapped and what the teacher
  /// has, averaged over its pictures and over its texts, and the mean of both: [B].
  at::Tensor loss(const at::Tensor& image_ND, const at::Tensor& text_MD,
                  const std::vector<TaughtRows>& taught, int64_t samples);

 private:
  std::vector<Linear> image_, text_;
};
TORCH_MODULE(TeacherHeads);

}  // namespace fathom
