// Errors: one exception type for everything that comes from outside, one macro for contracts.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace fathom {

/// Who is at fault and what was being read; decides the exit status (`exit_status`).
enum class ErrorKind {
  kConfig,      ///< a recipe, an option or an override
  kData,        ///< an image, audio, text or manifest file
  kCheckpoint,  ///< a model folder, safetensors file or training state
  kRequest,     ///< what a caller asked of a running engine
  kUsage,       ///< the command line itself
  kPeer,        ///< another rank failed or was lost; the message names it
  kInternal,    ///< our own fault
};

/// The one exception Fathom throws. Thrown anywhere; caught in `main`, at thread roots and in HTTP handlers
/// only.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

/// Throws an `Error` with a formatted message: `fail(ErrorKind::kData, "{}: truncated", path)`.
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

/// What `call` returns; what it throws is of `kind` instead, with the same message: settings read out of a
/// checkpoint are the checkpoint's fault.
template <typename Call>
auto with_error_kind(ErrorKind kind, const Call& call) {
  try {
    return call();
  } catch (const Error& error) {
    throw Error(kind, error.what());
  }
}

/// Process exit status: 1 the user's input is at fault, 2 wrong usage, 3 our fault or that of another rank.
int exit_status(ErrorKind kind);

}  // namespace fathom

/// Contract check: `FATHOM_CHECK(x > 0, "[rms_norm] expected a positive size, got {}", x)`; throws kInternal.
#define FATHOM_CHECK(condition, ...)                               \
  do {                                                             \
    if (!(condition)) [[unlikely]]                                 \
      ::fathom::fail(::fathom::ErrorKind::kInternal, __VA_ARGS__); \
  } while (false)
