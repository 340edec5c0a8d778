// Process groups: c10d's Gloo backend, the group around a backend, and its collectives.
#include "guard.hpp"

#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>

using lethe::guarded;
using c10d::ProcessGroup;
using Store = c10::intrusive_ptr<c10d::Store>;
using Backend = c10::intrusive_ptr<c10d::Backend>;
using Group = c10::intrusive_ptr<ProcessGroup>;
using Device = std::shared_ptr<gloo::transport::Device>;

namespace {

// Broadcast sends tensors in flattened pieces of about this size, two of them in flight.
constexpr size_t kBroadcastBytes = 16 * 1024 * 1024;

} // namespace

extern "C" {

// A Gloo device is a listening socket, and the thread that serves it and every connection made through it.
int lethe_gloo_device(const char* name, bool is_interface, Device** out, char** message) {
  return guarded(message, [&] {
    // Connections are made at once (not lazily), so that a missing peer is an error of joining.
    *out = new Device(
        is_interface ? c10d::ProcessGroupGloo::createDeviceForInterface(name, /*lazyInit=*/false)
                     : c10d::ProcessGroupGloo::createDeviceForHostname(name, /*lazyInit=*/false));
  });
}

void lethe_gloo_device_free(Device* device) {
  delete device;
}

int lethe_gloo_backend(
    const Store* store, const Device* device, int rank, int world, int64_t timeout_ms, Backend** out, char** message) {
  return guarded(message, [&] {
    auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
    options->devices.push_back(*device);
    *out = new Backend(c10::make_intrusive<c10d::ProcessGroupGloo>(*store, rank, world, options));
  });
}

// Wraps a backend of this library or of the NCCL one. The group takes its own share of the backend.
int lethe_group_new(
    const Store* store, const Backend* backend, bool nccl, int rank, int world, Group** out, char** message) {
  return guarded(message, [&] {
    const auto type = nccl ? ProcessGroup::BackendType::NCCL : ProcessGroup::BackendType::GLOO;
    auto group = c10::make_intrusive<ProcessGroup>(*store, rank, world);
    group->setBackend(nccl ? c10::DeviceType::CUDA : c10::DeviceType::CPU, type, *backend);
    group->setDefaultBackend(type);
    *out = new Group(std::move(group));
  });
}

int lethe_group_broadcast(const Group* group, at::Tensor* const* tensors, size_t count, int root, char** message) {
  return guarded(message, [&] {
    const torch::NoGradGuard no_grad; // parameters are leaves that require gradients: writing to them needs this
    std::vector<at::Tensor> list;
    for (size_t i = 0; i < count; i++) list.push_back(tensors[i]->detach());
    c10d::broadcast_coalesced(*group, list, kBroadcastBytes, root);
  });
}

int lethe_group_all_reduce_sum(const Group* group, at::Tensor* tensor, char** message) {
  return guarded(message, [&] {
    const torch::NoGradGuard no_grad;
    const auto target = tensor->detach(); // shares the storage
    std::vector<at::Tensor> list{target.contiguous()};
    (*group)->allreduce(list)->wait();
    if (!list[0].is_same(target)) target.copy_(list[0]);
  });
}

void lethe_group_free(Group* group) {
  char* message = nullptr;
  guarded(&message, [&] { delete group; });
  free(message);
}

void lethe_backend_free(Backend* backend) {
  char* message = nullptr;
  guarded(&message, [&] { delete backend; });
  free(message);
}

// Ends what is in flight. Only NCCL does something here; Gloo's connections are closed from the Rust side.
int lethe_backend_abort(const Backend* backend, char** message) {
  return guarded(message, [&] { (*backend)->abort(); });
}

// The orderly end, when nothing is in flight. Only NCCL does something here.
int lethe_backend_shutdown(const Backend* backend, char** message) {
  return guarded(message, [&] { (*backend)->shutdown(); });
}

} // extern "C"
