// One step of Adam over all variables in one call of libtorch's fused operator, which tch leaves out.

#include <vector>

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_fused_adam.h>

#include "guard.hpp"

extern "C" char* lethe_adam_step(
    size_t count, at::Tensor* const* weights, at::Tensor* const* gradients, at::Tensor* const* means,
    at::Tensor* const* squares, at::Tensor* const* steps, double lr, double beta1, double beta2, double eps) {
  return lethe::guarded([&] {
    auto list = [count](at::Tensor* const* tensors) {
      std::vector<at::Tensor> all;
      all.reserve(count);
      for (size_t i = 0; i < count; ++i) all.push_back(*tensors[i]);
      return all;
    };
    // The operator corrects its moments by the step it is in, so the count goes up before it, as in torch.optim.
    auto counts = list(steps);
    at::_foreach_add_(counts, 1);
    at::_fused_adam_(
        list(weights), list(gradients), list(means), list(squares), {}, counts, lr, beta1, beta2,
        /*weight_decay=*/0.0, eps, /*amsgrad=*/false, /*maximize=*/false);
  });
}

