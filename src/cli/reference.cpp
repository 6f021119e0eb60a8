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
      ->check(CLI::IsMember({"contrastive", "language", "classification", "all"}))
      ->capture_default_str();
  if (!parse_options(app, argc, argv)) return 0;
  fmt::print(
      "# Recipe reference\n\nWritten by `fathom reference`. A recipe is a TOML file; every key may also be "
      "given as "
      "`--set key=value`.\n");
  if (task == "contrastive" || task == "all")
    fmt::print("\n# Recipes with task = \"contrastive\"\n\n{}", config_reference<RecipeConfig>());
  if (task == "language" || task == "all")
    fmt::print("\n# Recipes with task = \"language\"\n\n{}", config_reference<LanguageRecipeConfig>());
  if (task == "classification" || task == "all")
    fmt::print("\n# Recipes with task = \"classification\"\n\n{}",
               config_reference<ClassificationRecipeConfig>());
  return 0;
}

}  // namespace fathom::cli
