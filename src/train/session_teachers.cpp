#include "train/session_teachers.h"

#include <torch/torch.h>

#include "base/error.h"
#include "evaluate/model_inputs.h"
#include "models/narrowed.h"

namespace fathom {
namespace {

constexpr const char* kKey = "contrastive.distillation.teachers";

bool sees_as(const ImagePreprocessing& a, const ImagePreprocessing& b) {
  return a.mean == b.mean && a.deviation == b.deviation;
}

/// Of the model in `path`: texts become the same tokens.
void require_same_tokens(const LoadedModel& teacher, const std::string& path, const RecipeConfig& recipe,
                         const Tokenizer& tokenizer) {
  const auto own = model_tokenizer(teacher, path);
  if (!own || own->to_json() != tokenizer.to_json())
    fail(ErrorKind::kConfig,
         "{}: {} has another tokenizer than this run (tokenizer.path can name a folder's)", kKey, path);
  const TextEncodingConfig theirs = model_inputs(teacher, own.get(), path).text,
                           &ours = recipe.data.inputs.text;
  if (theirs.begin_token != ours.begin_token || theirs.end_token != ours.end_token)
    fail(ErrorKind::kConfig,
         "{}: {} reads texts between \"{}\" and \"{}\", this run between \"{}\" and \"{}\"", kKey, path,
         theirs.begin_token, theirs.end_token, ours.begin_token, ours.end_token);
}

}  // namespace

std::vector<DualTowerConfig> teacher_shapes(const RecipeConfig& recipe) {
  std::vector<DualTowerConfig> shapes;
  const SwinConfig& vision = recipe.dual_tower.vision;
  for (const std::string& path : recipe.contrastive.distillation.teachers) {
    const DualTowerConfig shape = dual_tower_shape(path);
    if (shape.vision.image_size != vision.image_size)
      fail(ErrorKind::kConfig, "{}: {} takes pictures of {} pixels a side, this model of {}", kKey, path,
           shape.vision.image_size, vision.image_size);
    if (!sees_as(shape.vision.preprocessing, vision.preprocessing))
      fail(ErrorKind::kConfig, "{}: {} has other means and deviations of pixels than this model", kKey, path);
    if (shape.text.max_positions < recipe.data.inputs.text.max_tokens)
      fail(ErrorKind::kConfig, "{}: {} takes {} tokens, fewer than data.text.max_tokens = {}", kKey, path,
           shape.text.max_positions, recipe.data.inputs.text.max_tokens);
    shapes.push_back(shape);
  }
  return shapes;
}

std::vector<DualTower> load_teachers(const RecipeConfig& recipe, const SessionPlace& place,
                                     const Tokenizer& tokenizer) {
  std::vector<DualTower> teachers;
  const size_t number = teacher_shapes(recipe).size();
  for (size_t i = 0; i < number; ++i) {
    if (place.names_only) {
      teachers.emplace_back(narrowed(recipe.dual_tower));
      continue;
    }
    const std::string& path = recipe.contrastive.distillation.teachers[i];
    LoadedModel loaded = load_model_folder(path);
    require_same_tokens(loaded, path, recipe, tokenizer);
    loaded.dual_tower->to(place.runtime.device(), parameter_type(recipe.precision));
    teachers.push_back(loaded.dual_tower);
  }
  return teachers;
}

}  // namespace fathom
