// The settings under which a GPU repeats its numbers, which tch leaves out.

#include <mutex>
#include <set>
#include <string>

#include <ATen/Context.h>

#include "guard.hpp"

namespace {

// Says each thing once: an operator that cannot be repeated warns at every call, and training calls it a million times.
class Once final : public c10::WarningHandler {
 public:
  void process(const c10::Warning& warning) override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (said_.size() >= kMost || !said_.insert(warning.msg()).second) return;
    }
    c10::WarningHandler::process(warning);
  }

 private:
  static constexpr size_t kMost = 100;
  std::mutex mutex_;
  std::set<std::string> said_;
};

} // namespace

// To be called on the thread that works: libtorch keeps the handler of warnings for each thread, and a backward pass hands its
// warnings to the thread that started it.
extern "C" char* lethe_repeatable(int tf32) {
  return lethe::guarded([&] {
    static Once once;
    c10::WarningUtils::set_warning_handler(&once);
    auto& context = at::globalContext();
    // The same algorithm in every process, and one that adds up in a fixed order.
    context.setBenchmarkCuDNN(false);
    context.setDeterministicCuDNN(true);
    // Operators that have a repeatable form use it, others warn: a user's generator may need one.
    context.setDeterministicAlgorithms(true, /*warn_only=*/true);
    // It would also fill all fresh memory, to show reads of what nobody wrote.
    context.setDeterministicFillUninitializedMemory(false);
    // libtorch's own default allows it for convolutions and forbids it for products.
    context.setAllowTF32CuDNN(tf32 != 0);
    context.setAllowTF32CuBLAS(tf32 != 0);
  });
}
