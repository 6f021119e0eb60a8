// Reads the input as a tokenizer.json; if that works, encodes with it. A second tokenizer, fixed, encodes the
// raw input and must give it back. Nothing may crash, hang, or throw anything but Error.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "data/tokenizer/spec.h"
#include "data/tokenizer/tokenizer.h"

namespace {

using fathom::Tokenizer;

constexpr size_t kLongestJson = 1 << 16;

void read_and_encode(std::string_view text) {
  try {
    const Tokenizer tokenizer = Tokenizer::from_json(text, "fuzz");
    const std::string_view sample = text.substr(0, 512);
    const std::vector<int32_t> ids = tokenizer.encode(sample, true);
    tokenizer.decode(ids);
    Tokenizer::from_json(tokenizer.to_json(), "again");
  } catch (const fathom::Error&) {
  }
}

Tokenizer fixed_tokenizer(fathom::SplitterKind splitter) {
  fathom::TokenizerSpec spec = fathom::gpt2_spec("#version: 0.2\nĠ t\nĠ a\nh e\ni n\nĠt he\nâ Ģ\n1 2\nĊ Ċ\n");
  fathom::apply_splitter(spec, splitter);
  return Tokenizer(std::move(spec));
}

void round_trip(std::string_view text) {
  static const Tokenizer gpt2 = fixed_tokenizer(fathom::SplitterKind::kGpt2);
  static const Tokenizer llama3 = fixed_tokenizer(fathom::SplitterKind::kLlama3);
  for (const Tokenizer* tokenizer : {&gpt2, &llama3})
    for (const bool special : {false, true})
      if (tokenizer->decode(tokenizer->encode(text, special)) != text) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  round_trip(text);
  if (size <= kLongestJson) read_and_encode(text);
  return 0;
}
