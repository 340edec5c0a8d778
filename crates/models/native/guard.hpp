// The line no C++ exception crosses: every function that Rust calls runs its body inside `guarded`.
#pragma once

#include <cstdlib>
#include <cstring>
#include <exception>

#include <c10/util/Exception.h>

namespace lethe {

// What is said when there is no memory for what was to be said: null would read as success.
inline char speechless[] = "out of memory while an error was being reported";

inline char* said(const char* what) noexcept {
  char* copy = strdup(what);
  return copy ? copy : speechless;
}

inline void forget(char* message) noexcept {
  if (message != speechless) free(message);
}

// Null when the body ran through, else what it threw, as a string that goes back to `forget`.
template <typename Body>
char* guarded(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return said(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return said(e.what());
  } catch (...) {
    return said("an exception of an unknown type");
  }
}

} // namespace lethe
