// fathom completion bash|zsh|fish
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <string_view>
#include <vector>

#include "cli/options.h"
#include "cli/verbs.h"

namespace fathom::cli {
namespace {

/// Where the verbs go.
constexpr std::string_view kPlace = "@VERBS@";

/// Options are completed by the verb's own help, so a script never falls behind the options.
constexpr const char* kBash = R"sh(_fathom() {
  local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]}
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "@VERBS@ help --help --version" -- "$word"))
  elif [ "${word#-}" != "$word" ]; then
    COMPREPLY=($(compgen -W "$(fathom "$verb" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*')" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}
complete -o filenames -F _fathom fathom
)sh";

constexpr const char* kZsh = R"sh(#compdef fathom
_fathom() {
  local -a verbs options
  verbs=(@VERBS@)
  if (( CURRENT == 2 )); then
    _describe verb verbs
  elif [[ ${words[CURRENT]} == -* ]]; then
    options=(${(f)"$(fathom ${words[2]} --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*')"})
    compadd -a options
  else
    _files
  fi
}
compdef _fathom fathom
)sh";

constexpr const char* kFish = R"sh(complete -c fathom -n __fish_use_subcommand -f
@VERBS@complete -c fathom -n 'not __fish_use_subcommand' -a '(fathom (commandline -opc)[2] --help 2>/dev/null | string match -r -a -- "--[a-z][a-z-]*")'
)sh";

std::string script(const std::string& shell) {
  std::vector<std::string> words;
  for (const Verb& verb : verbs()) {
    if (shell == "bash") words.emplace_back(verb.name);
    if (shell == "zsh") words.push_back(fmt::format("'{}:{}'", verb.name, verb.help));
    if (shell == "fish")
      words.push_back(
          fmt::format("complete -c fathom -n __fish_use_subcommand -a {} -d '{}'\n", verb.name, verb.help));
  }
  std::string text = shell == "bash" ? kBash : shell == "zsh" ? kZsh : kFish;
  return text.replace(text.find(kPlace), kPlace.size(),
                      fmt::format("{}", fmt::join(words, shell == "fish" ? "" : " ")));
}

}  // namespace

int run_completion(int argc, const char* const* argv) {
  VerbApp app("completion",
              "Prints a completion script.\n"
              "bash: fathom completion bash > ~/.local/share/bash-completion/completions/fathom\n"
              "zsh:  fathom completion zsh > a folder of $fpath, as _fathom\n"
              "fish: fathom completion fish > ~/.config/fish/completions/fathom.fish");
  std::string shell;
  app.add_option("shell", shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  if (!parse_options(app, argc, argv)) return 0;
  fmt::print("{}", script(shell));
  return 0;
}

}  // namespace fathom::cli
