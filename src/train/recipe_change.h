// What may change in a recipe between two parts of a run.
#pragma once

#include "base/json.h"

namespace fathom {

/// Compares the recipe of the part that a run goes on from with that of the part to come, both as
/// `config_to_json` gives them; keys that only one of them has were unknown to the program then, and pass.
/// With `warns`, one warning names what else is changed. Errors (kConfig): what the saved state or the place
/// in the data depends on is changed (task, seed, batch size, data, tokenizer, model); the message names the
/// key and both values.
void check_resumed_recipe(const Json& former, const Json& recipe, bool warns);

}  // namespace fathom
