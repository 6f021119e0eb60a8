// What the embeddings of a whole batch are worth: contrast among all its modalities, any of them missing.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "models/dual_tower/model.h"
#include "train/losses/contrastive_losses.h"
#include "train/task.h"
#include "train/task/contrastive_config.h"
#include "train/task/distillation.h"
#include "train/task/hard_negatives.h"
#include "train/task/modality_discriminator.h"
#include "train/task/pair_targets.h"
#include "train/task/row_count.h"

namespace fathom {

/// In the order in which a model's modalities are numbered.
enum class Modality { kImage, kText, kSound };

/// What one modality brings: R rows each of B samples (views, captions, clips), those of sample b at R·b.
struct ModalityRows {
  Modality modality = Modality::kImage;
  PairSide side;
  at::Tensor present_B;  ///< bool: which samples have it; undefined: none may lack it

  int64_t rows_each(int64_t samples) const { return side.whole_ND.size(0) / samples; }
};

/// One rank's embeddings, and what identifies them.
struct ContrastiveRows {
  std::vector<ModalityRows> modalities;  ///< the model's, picture and text first
  at::Tensor view_VD;                    ///< for the contrast among views; undefined without it
  at::Tensor word_loss_V;                ///< of each view's naming of words; undefined without it
  at::Tensor location_loss_V;            ///< of each view's localization; undefined without it
  std::vector<TaughtRows> taught;        ///< of each teacher; empty without any
  at::Tensor taught_loss_B;              ///< of each sample's embeddings beside theirs; undefined without it
  at::Tensor owner_B;    ///< int64: position of each sample in its data set; equal ones are one sample
  at::Tensor caption_M;  ///< int64 hashes of the texts
  MixedIn mixed;         ///< what pictures have of others; undefined where none are mixed

  const ModalityRows& of(Modality modality) const { return modalities[static_cast<size_t>(modality)]; }
  /// Those through which gradients go back to the towers; some may be undefined.
  std::vector<at::Tensor*> learned();
  /// One behind the other, padded to the most parts. REQUIRES the same modalities and R everywhere.
  static ContrastiveRows join(const std::vector<ContrastiveRows>& parts);
};

/// Every rank compares its own rows with those of all ranks; gradients of gathered embeddings go back to
/// their owners.
///
/// Each kind of pairs (pictures with texts; with a third tower, pictures with sounds and texts with sounds)
/// has a loss of its own. Its queries are the samples that have both, its candidates all that have the other:
/// InfoNCE both ways, or the pairwise sigmoid, divided by the number of queries' rows over all ranks. The
/// objective is the mean over kinds, weighed by `config.pairs`; a kind that the batch has no pair of counts
/// 0. So two towers are the case of one kind.
///
/// Where the model has region scores, the same loss of pictures with texts over them is added with
/// `region_weight`. Each rank scores its own texts with all pictures; scores, not tokens, then go to the
/// other ranks. `reversal` adds what a modality discriminator sees in the embeddings, with reversed
/// gradients; `consistency` the divergence between whom a sample's modalities resemble in the batch, averaged
/// over the kinds of pairs; `view_weight` contrast among views of a picture, `caption_weight` among its
/// captions; `word_weight` the mean loss of naming words, over views of samples with picture and captions;
/// `localization` that of telling where regions lie, over all views.
///
/// Where pictures are mixed, their pairs with texts have targets in shares, and views of two pictures that
/// are mixed with each other are not held against each other; with `soft_targets`, so much of every target is
/// given by how alike texts are (pair_targets.h), or, with teachers, by what these find alike, and embeddings
/// are compared with theirs (distillation.h). All are for two towers and InfoNCE.
class ContrastiveObjective {
 public:
  struct Setup {
    DualTower model{nullptr};
    ContrastiveConfig config;
    ModalityDiscriminator discriminator{nullptr};        ///< set where config.reversal is not 0
    std::shared_ptr<HardNegatives> hard_negatives = {};  ///< may be null
    std::shared_ptr<const Teachers> teachers = {};       ///< set where there is something to learn of them
  };
  explicit ContrastiveObjective(Setup setup) : setup_(std::move(setup)) {}

  /// This rank's share of the objective. Shapes of `local` must be equal on all ranks.
  at::Tensor loss(const ContrastiveRows& local, const StepContext& step) const;

 private:
  struct Gathered;  ///< what every rank has of all ranks' embeddings
  struct Kind {     ///< of pairs
    Modality first, second;
    double weight;
  };
  /// A value for rows of the first modality against columns of the second, and the other way round.
  struct Labels {
    PairTargets forward, backward;
    RowCount first, second;  ///< rows that count over all ranks
  };
  struct Similarities {
    at::Tensor forward, backward;
  };
  struct Calibration {
    at::Tensor scale, bias;
  };

  std::vector<Kind> kinds() const;
  Gathered gather(const ContrastiveRows& local, Collective& collective) const;
  Labels label(const ContrastiveRows& local, const Gathered& all, const Kind& kind,
               Collective& collective) const;
  void share_out(Labels& labels, const ContrastiveRows& local, const Gathered& all, const Kind& kind) const;
  void soften(Labels& labels, const Gathered& all, const Kind& kind, Collective& collective) const;
  /// What is known of pairs beside their labels.
  SoftShare soft_share() const;
  PairLabels label(const ContrastiveRows& rows, const ContrastiveRows& columns, Modality row,
                   Modality column) const;
  at::Tensor pair_loss(const Similarities& similarities, const Labels& labels,
                       const Calibration& calibration) const;
  at::Tensor global_loss(const ContrastiveRows& local, const Gathered& all, const Kind& kind,
                         const Labels& labels) const;
  static Similarities region_similarities(const ContrastiveRows& local, const Gathered& all,
                                          Collective& collective);
  /// Rows of one modality, this rank's and all, of which those of one sample belong together.
  struct Siblings {
    Modality modality;
    at::Tensor own_RD, all_ND;
  };
  at::Tensor self_loss(const Siblings& siblings, const ContrastiveRows& local, Collective& collective) const;
  at::Tensor consistency_loss(const ContrastiveRows& local, const Gathered& all, const Kind& kind,
                              Collective& collective) const;
  at::Tensor adversarial_loss(const ContrastiveRows& local, const Gathered& all,
                              const StepContext& step) const;

  Setup setup_;
};

}  // namespace fathom
