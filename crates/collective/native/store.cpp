// The rendezvous store: c10d's TCPStore and its prefixed views, as C functions over owned handles.
#include "guard.hpp"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

using lethe::guarded;
using Store = c10::intrusive_ptr<c10d::Store>;

extern "C" {

// `listener` is a bound and listening socket; the server owns it from here on, also when this call fails after
// the server started. A negative `listener` means: connect to a server that somebody else runs. Connecting takes no longer
// than `connect_ms`; later waits inside libtorch no longer than `timeout_ms`.
int lethe_store_new(
    const char* host, uint16_t port, int listener, int64_t connect_ms, int64_t timeout_ms, Store** out, char** message) {
  return guarded(message, [&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.timeout = std::chrono::milliseconds(connect_ms);
    options.waitWorkers = false;
    if (listener >= 0) {
      options.isServer = true;
      options.masterListenFd = listener;
    }
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    store->setTimeout(std::chrono::milliseconds(timeout_ms));
    *out = new Store(std::move(store));
  });
}

int lethe_store_scope(const Store* store, const char* prefix, Store** out, char** message) {
  return guarded(message, [&] { *out = new Store(c10::make_intrusive<c10d::PrefixStore>(prefix, *store)); });
}

int lethe_store_add(const Store* store, const char* key, int64_t delta, int64_t* out, char** message) {
  return guarded(message, [&] { *out = (*store)->add(key, delta); });
}

int lethe_store_set(const Store* store, const char* key, const char* value, char** message) {
  return guarded(message, [&] { (*store)->set(key, std::string(value)); });
}

// Does not wait: `*out` is null when the key is not there yet. The caller frees it with free(3).
int lethe_store_find(const Store* store, const char* key, char** out, char** message) {
  return guarded(message, [&] {
    *out = nullptr;
    if (!(*store)->check({key})) return;
    const auto bytes = (*store)->get(key);
    *out = strndup(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
}

void lethe_store_free(Store* store) {
  char* message = nullptr;
  guarded(&message, [&] { delete store; });
  free(message);
}

} // extern "C"
