// Any text is either refused with an `Error` or reads into a config that writes back to the same record.
#include <cstdlib>
#include <string>

#include "base/config.h"
#include "base/error.h"

namespace {

struct Part {
  double rate = 0.5;
  std::vector<int64_t> sizes = {1};
  void fields(fathom::Fields& f) {
    f("rate", rate, "a share", {.low = 0, .high = 1});
    f("sizes", sizes, "sizes", {.low = 1});
  }
};

struct Recipe {
  bool flag = false;
  int64_t steps = 1;
  std::string name;
  Part part;
  std::vector<Part> parts;
  void fields(fathom::Fields& f) {
    f("flag", flag, "a switch");
    f("steps", steps, "steps", {.low = 1, .high = 1e9});
    f("name", name, "a name");
    f.group("part", part, "one part");
    f.list("parts", parts, "more parts");
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const Recipe recipe = fathom::read_config<Recipe>(fathom::parse_toml(text, "fuzz"));
    const fathom::Json record = fathom::config_to_json(recipe);
    const auto again =
        fathom::read_config<Recipe>(fathom::parse_toml(fathom::json_to_toml(record), "record"));
    if (!(fathom::config_to_json(again) == record)) std::abort();
  } catch (const fathom::Error&) {
  }
  return 0;
}
