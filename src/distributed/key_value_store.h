// The few words that ranks exchange outside of tensors: heartbeats and reasons of failure.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace fathom {

/// A small map that every rank sees. Methods may be called from several threads and throw (anything derived
/// from std::exception) when whoever serves the map cannot be reached.
class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;
  virtual void set(const std::string& key, const std::string& value) = 0;
  /// Sets the value unless there is one; returns the value that stands.
  virtual std::string set_once(const std::string& key, const std::string& value) = 0;
  virtual int64_t add(const std::string& key, int64_t delta) = 0;
  /// Does not wait.
  virtual std::optional<std::string> find(const std::string& key) = 0;
};

}  // namespace fathom
