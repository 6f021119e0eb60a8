// fathom reference
#include <fmt/format.h>

#include "base/config.h"
#include "cli/options.h"
#include "cli/verbs.h"
#include "train/recipe.h"

namespace fathom::cli {

int run_reference(int argc, const char* const* argv) {
  VerbApp app("reference",
              "Prints every key of a recipe as Markdown, from the configuration structs themselves.");
  std::string task = "all";
  app.add_option("--task", task, "recipes of this task")
      ->check(CLI::IsMember({"contrastive", "language", "answers", "masked_image", "masked_audio",
                             "masked_token", "classification", "all"}))
      ->capture_default_str();
  if (!parse_options(app, argc, argv)) return 0;
  fmt::print(
      "# Recipe reference\n\nWritten by `fathom reference`. A recipe is a TOML file; every key may also be "
      "given as "
      "`--set key=value`.\n");
  const auto print = [&](const char* name, const std::string& text) {
    if (task == "all" || task == name) fmt::print("\n# Recipes with task = \"{}\"\n\n{}", name, text);
  };
  print("contrastive", config_reference<RecipeConfig>());
  print("language", config_reference<LanguageRecipeConfig>());
  print("answers", config_reference<AnswersRecipeConfig>());
  print("masked_image", config_reference<MaskedImageRecipeConfig>());
  print("masked_audio", config_reference<MaskedAudioRecipeConfig>());
  print("masked_token", config_reference<MaskedTokenRecipeConfig>());
  print("classification", config_reference<ClassificationRecipeConfig>());
  return 0;
}

}  // namespace fathom::cli
