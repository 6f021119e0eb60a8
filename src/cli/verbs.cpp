#include "cli/verbs.h"

namespace fathom::cli {
namespace {

constexpr Verb kVerbs[] = {
    {"data", "make the built-in world, or look at a data set and its problems", run_data},
    {"tokenizer", "train a byte-level BPE; encode and decode standard input", run_tokenizer},
    {"train", "train a model by a recipe", run_train},
    {"launch", "run a command as several local processes that train together", run_launch},
    {"eval", "measure a model or a run on a data set", run_eval},
    {"compare", "say how sure the difference of two runs is", run_compare},
    {"embed", "write the embeddings of a data set", run_embed},
    {"search", "find pictures by words, or captions by a picture", run_search},
    {"ask", "answer questions about a picture", run_ask},
    {"generate", "continue a text", run_generate},
    {"bench", "time what gates save on this machine", run_bench},
    {"report", "write a run's curves, tables and pictures as one HTML file", run_report},
    {"doctor", "say what works on this machine and what is missing", run_doctor},
    {"version", "say which version this is", run_version},
    {"completion", "print a completion script for bash, zsh or fish", run_completion},
    {"reference", "print every key of a recipe as Markdown", run_reference},
};

}  // namespace

std::span<const Verb> verbs() {
  return kVerbs;
}

}  // namespace fathom::cli
