#include "train/recipe_change.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/log.h"

namespace fathom {
namespace {

/// Keys, or tables of keys.
constexpr std::string_view kFixed[] = {"task",
                                       "seed",
                                       "training.batch_size",
                                       "data.train",
                                       "data.val",
                                       "data.train_files",
                                       "data.val_files",
                                       "tokenizer",
                                       "model",
                                       "lora.rank",
                                       "lora.patterns",
                                       "data.chat",
                                       "data.mix",
                                       "data.mixing",
                                       "data.pairing.questions_per_image",
                                       "contrastive.distillation.teachers"};

bool is_fixed(std::string_view key) {
  return std::any_of(std::begin(kFixed), std::end(kFixed), [&](std::string_view fixed) {
    return key.starts_with(fixed) && (key.size() == fixed.size() || key[fixed.size()] == '.');
  });
}

/// Appends the keys whose values differ, in the recipe's order.
void compare(const Json& former, const Json& recipe, const std::string& prefix,
             std::vector<std::string>& changed) {
  for (const auto& [name, value] : recipe.as_object()) {
    const Json* before = former.find(name);
    if (!before) continue;
    const std::string key = prefix + name;
    if (value.is_object() && before->is_object()) {
      compare(*before, value, key + ".", changed);
    } else if (const std::string was = before->dump(), is = value.dump(); was != is) {
      if (is_fixed(key)) fail(ErrorKind::kConfig, "{}: the run began with {}, got {}", key, was, is);
      changed.push_back(key);
    }
  }
}

}  // namespace

void check_resumed_recipe(const Json& former, const Json& recipe, bool warns) {
  std::vector<std::string> changed;
  compare(former, recipe, "", changed);
  if (warns && !changed.empty())
    log::warning("the run goes on with other settings than before: {}", fmt::join(changed, ", "));
}

}  // namespace fathom
