// The line no C++ exception crosses: every function that Rust calls runs its body inside `guarded`.
#pragma once

#include <cstring>
#include <exception>

#include <c10/util/Exception.h>

namespace lethe {

// Null when the body ran through, else what it threw, as a string that Rust frees with free(3).
template <typename Body>
char* guarded(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("an exception of an unknown type");
  }
}

} // namespace lethe
