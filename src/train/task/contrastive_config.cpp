#include "train/task/contrastive_config.h"

#include "base/error.h"

namespace fathom {

void PairWeights::fields(Fields& f) {
  f("image_text", image_text, "pictures with texts", {.low = 0});
  f("image_sound", image_sound, "pictures with sounds", {.low = 0});
  f("text_sound", text_sound, "texts with sounds", {.low = 0});
}

void PairWeights::validate() const {
  if (image_text + image_sound + text_sound <= 0)
    fail(ErrorKind::kConfig, "all kinds of pairs have weight 0");
}

void ContrastiveConfig::fields(Fields& f) {
  f.choice("loss", loss, "softmax over the batch, or a decision about every pair",
           {{"infonce", ContrastiveLoss::kInfoNce}, {"sigmoid", ContrastiveLoss::kSigmoid}});
  f("label_smoothing", label_smoothing, "part of the target spread over all candidates (infonce)",
    {.low = 0, .high = 0.99});
  f("match_equal_captions", match_equal_captions,
    "a caption that equals one of another picture is no negative for it");
  f("mixup", mixup,
    "strength α of mixing each picture with another of its micro-batch, whose captions it then has in part; "
    "0 "
    "for none",
    {.low = 0, .high = 100});
  f("cutmix_share", cutmix_share,
    "with mixup: share of the mixed pictures that get a box of the other one in the place of a blend",
    {.low = 0, .high = 1});
  f("mix_share", mix_share, "with mixup: share of the samples whose pictures are mixed",
    {.low = 0, .high = 1});
  f("soft_targets", soft_targets,
    "part of the target that is spread over candidates by how much their captions resemble the sample's "
    "(infonce); 0 for none",
    {.low = 0, .high = 0.99});
  f("soft_temperature", soft_temperature, "its temperature", {.low = 0.001});
  f.group("pairs", pairs, "with model.audio_tower: weights of the kinds of pairs, whose losses are averaged");
  f("view_weight", view_weight, "weight of the contrast among views of one picture; 0 for none", {.low = 0});
  f("caption_weight", caption_weight, "weight of the contrast among captions of one picture; 0 for none",
    {.low = 0});
  f("self_temperature", self_temperature, "temperature of both", {.low = 0.001});
  f("word_weight", word_weight,
    "weight of naming the words of a sample's captions from its picture alone, the rarer a word the more it "
    "counts; 0 for none",
    {.low = 0});
  f("localization", localization,
    "weight of foretelling from two regions of a picture how far apart they lie; 0 for none", {.low = 0});
  f("localization_pairs", localization_pairs, "pairs of regions of each picture that are asked for",
    {.low = 1, .high = 4096});
  f("region_weight", region_weight, "weight of the loss over region scores, where model.region gives them",
    {.low = 0});
  f("reversal", reversal,
    "weight of a discriminator that tells the modalities apart by their embeddings, whose gradient reaches "
    "the towers reversed, times 2/(1 + exp(-10 p)) - 1 at progress p; 0 for none",
    {.low = 0});
  f("consistency", consistency,
    "weight of the symmetric divergence between whom a sample's picture and its text (and its sound) "
    "resemble "
    "in the batch; 0 for none",
    {.low = 0});
  f.group("hard_negatives", hard_negatives, "which negatives meet, and what each weighs");
  f.group("distillation", distillation, "other dual towers to learn from");
}

}  // namespace fathom
