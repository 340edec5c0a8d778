// The line no C++ exception crosses. Every function that Rust calls runs its body inside `guarded`, which turns
// whatever is thrown into a code and a sentence. The codes are mirrored by `ffi::Code`.
#pragma once

#include <cstring>
#include <exception>
#include <string>

#include <c10/util/Exception.h>
#include <gloo/common/error.h>

namespace lethe {

enum Code : int { OK = 0, TORCH = 1, TIMEOUT = 2, NETWORK = 3 };

// Thrown by our own waiting loops; torch has no exception for "no answer in time" that all backends share.
struct TimedOut : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline Code report(Code code, const char* what, char** message) {
  *message = strdup(what); // freed by Rust with free(3)
  return code;
}

// Gloo and the store say "timed out" with the same exception class as "connection lost": only the words differ.
inline Code network(const std::string& what) {
  for (const char* words : {"Timed out", "timed out", "imeout"}) {
    if (what.find(words) != std::string::npos) return TIMEOUT;
  }
  return NETWORK;
}

template <typename Body>
Code guarded(char** message, Body&& body) noexcept {
  *message = nullptr;
  try {
    body();
    return OK;
  } catch (const TimedOut& e) {
    return report(TIMEOUT, e.what(), message);
  } catch (const c10::DistError& e) { // store, network and backend errors
    return report(network(e.what_without_backtrace()), e.what_without_backtrace(), message);
  } catch (const c10::Error& e) {
    return report(TORCH, e.what_without_backtrace(), message);
  } catch (const gloo::IoException& e) {
    return report(network(e.what()), e.what(), message);
  } catch (const std::exception& e) {
    return report(TORCH, e.what(), message);
  } catch (...) {
    return report(TORCH, "an exception of an unknown type", message);
  }
}

} // namespace lethe
