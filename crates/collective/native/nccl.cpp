// The NCCL backend, a shared library of its own: it needs libtorch_cuda, which loads only where CUDA is. The
// executor opens it at run time when its device is a CUDA one (see nccl.rs).
#include "guard.hpp"

#include <thread>

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

using lethe::guarded;
using Store = c10::intrusive_ptr<c10d::Store>;
using Backend = c10::intrusive_ptr<c10d::Backend>;

namespace {

// By default torch's watchdog ends the whole process when a collective fails. An executor has to survive, since
// the parameters in its memory are what training goes on from: abort the communicators and report, no more.
class SurvivingNccl final : public c10d::ProcessGroupNCCL {
 public:
  SurvivingNccl(const Store& store, int rank, int world, c10::intrusive_ptr<Options> options)
      : ProcessGroupNCCL(store, rank, world, std::move(options)) {
    asyncErrorHandling_ = c10d::CleanUpOnly; // read by the watchdog only once a collective is under way
  }
};

const char* describe(c10d::ErrorType error) {
  switch (error) {
    case c10d::ErrorType::SUCCESS: return nullptr;
    case c10d::ErrorType::TIMEOUT: return "NCCL: a collective timed out";
    case c10d::ErrorType::COMM_ERROR: return "NCCL: the communicator failed";
    case c10d::ErrorType::REMOTE_ERROR: return "NCCL: a peer reported an error";
  }
  return "NCCL: an error of an unknown kind";
}

void check(c10d::Backend& backend) {
  const auto error = backend.getError();
  const char* what = describe(error);
  if (what == nullptr) return;
  if (error == c10d::ErrorType::TIMEOUT) throw lethe::TimedOut(what);
  C10_THROW_ERROR(DistBackendError, what);
}

} // namespace

extern "C" {

int lethe_nccl_devices(int* out, char** message) {
  return guarded(message, [&] { *out = c10::cuda::device_count(); });
}

int lethe_nccl_backend(
    const Store* store, int device, int rank, int world, int64_t timeout_ms, Backend** out, char** message) {
  return guarded(message, [&] {
    const c10::Device place(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device));
    const c10::cuda::CUDAGuard guard(place.index());
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    Backend backend = c10::make_intrusive<SurvivingNccl>(*store, rank, world, options);
    backend->setBoundDeviceId(place);
    *out = new Backend(std::move(backend));
  });
}

// Makes the communicator now, so that a peer that cannot be reached fails the joining and not the first collective. While it waits
// for a peer it cannot be aborted: libtorch knows a communicator only once NCCL has made it. Only the end of the process ends that.
int lethe_nccl_connect(const Backend* backend, int device, char** message) {
  return guarded(message, [&] {
    (*backend)->eagerConnectSingleDevice(
        c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)));
  });
}

// Blocks until the GPU has finished everything enqueued so far on the current stream. NCCL calls return when the
// work is enqueued, and an aborted one leaves garbage in its buffers: only after this may a result be used.
int lethe_nccl_settle(const Backend* backend, int device, int64_t timeout_ms, char** message) {
  return guarded(message, [&] {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    at::cuda::CUDAEvent done;
    done.record(c10::cuda::getCurrentCUDAStream());
    while (!done.query()) {
      check(**backend);
      if (std::chrono::steady_clock::now() > deadline) throw lethe::TimedOut("NCCL: the GPU did not finish");
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    check(**backend);
  });
}

} // extern "C"
