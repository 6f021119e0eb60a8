#include "data/tokenizer/post_processor.h"

#include "base/error.h"

namespace fathom {
namespace {

int32_t checked_id(const Json& value, int64_t vocab_size) {
  const int64_t id = value.as_int();
  if (id < 0 || id >= vocab_size)
    fail(ErrorKind::kData, "the post-processor uses id {}, the vocabulary has {} ids", id, vocab_size);
  return static_cast<int32_t>(id);
}

/// {"single": [{"SpecialToken": {"id": name}}, {"Sequence": …}, …], "special_tokens": {name: {"ids": […]}}}
void read_template(const Json& step, int64_t vocab_size, Affixes& affixes) {
  std::vector<int32_t>* side = &affixes.prefix;
  for (const Json& part : step.at("single").as_array()) {
    const Json* special = part.find("SpecialToken");
    if (!special) {
      side = &affixes.suffix;
      continue;
    }
    const Json& token = step.at("special_tokens").at(special->at("id").as_string());
    for (const Json& id : token.at("ids").as_array()) side->push_back(checked_id(id, vocab_size));
  }
}

int32_t id_of_pair(const Json& pair, int64_t vocab_size) {
  if (pair.as_array().size() != 2) fail(ErrorKind::kData, "the post-processor's token is not [text, id]");
  return checked_id(pair.as_array()[1], vocab_size);
}

void read_step(const Json& step, int64_t vocab_size, Affixes& affixes) {
  const std::string& type = step.at("type").as_string();
  if (type == "Sequence") {
    for (const Json& part : step.at("processors").as_array()) read_step(part, vocab_size, affixes);
  } else if (type == "TemplateProcessing") {
    read_template(step, vocab_size, affixes);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    affixes.prefix.push_back(id_of_pair(step.at("cls"), vocab_size));
    affixes.suffix.push_back(id_of_pair(step.at("sep"), vocab_size));
  } else if (type != "ByteLevel") {
    fail(ErrorKind::kData, "post-processor {} is not supported", type);
  }
}

}  // namespace

Affixes read_affixes(const Json& post_processor, int64_t vocab_size) {
  Affixes affixes;
  if (!post_processor.is_null()) read_step(post_processor, vocab_size, affixes);
  return affixes;
}

}  // namespace fathom
