#include "cli/masked_token_data.h"

#include <algorithm>

#include "base/error.h"
#include "batch/sources.h"

namespace fathom::cli {
namespace {

TokenMaskConfig recorded_masks(const OpenedModel& model) {
  const Json* record = model.loaded.extras.record.find("masked_token");
  if (!record) return {};
  return with_error_kind(ErrorKind::kCheckpoint, [&] {
    return read_config<TokenMaskConfig>({.values = *record, .source = model.folder + "/fathom.json"});
  });
}

/// A run's record names texts in a list, a manifest by its path alone.
bool are_texts(const DataOptions& options, const OpenedModel& model) {
  if (!options.path.empty()) return detect_format(options.path).format == DataFormat::kText;
  const Json* data = model.loaded.extras.record.find("evaluation_data");
  return data && data->is_array();
}

}  // namespace

MaskedTokenData masked_token_data(const OpenedModel& model, const DataOptions& options, int64_t window) {
  const auto tokenizer = model.require_tokenizer();
  TextEncodingConfig text = model.inputs.text;
  MaskedTokenData data{
      .config = recorded_masks(model),
      .vocabulary = mask_vocabulary(*tokenizer, text.mask_token, {text.begin_token, text.end_token}),
      .options = model.evaluate};
  data.options.batch_size = std::min<int64_t>(data.options.batch_size, 16);  // windows are long
  if (are_texts(options, model)) {
    std::vector<TokenFile> files;
    for (const std::string& path : data_paths(options, model))
      files.push_back(TokenFile::open(path, *tokenizer));
    data.source = std::make_shared<const TokenWindowSource>(
        std::move(files), window - 1, Phase::kEvaluate, /*seed=*/0, tokenizer->start_of_text().value_or(0));
  } else {
    text.max_tokens = std::min(text.max_tokens, window);
    data.source =
        std::make_shared<const TextSource>(open_data(options, model), TextEncoding(tokenizer, text));
  }
  return data;
}

}  // namespace fathom::cli
