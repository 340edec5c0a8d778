// The gradient reducer of DistributedDataParallel: buckets, hooks on the gradient accumulators, overlapped all-reduce.
#include "guard.hpp"

#include <torch/csrc/distributed/c10d/reducer.hpp>

using lethe::guarded;
using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

namespace {

struct Reducer {
  bool find_unused;
  std::unique_ptr<c10d::Reducer> inner;
};

template <typename T>
std::vector<T> reversed(std::vector<T> list) {
  std::reverse(list.begin(), list.end());
  return list;
}

} // namespace

extern "C" {

int lethe_reducer_new(
    const Group* group, at::Tensor* const* tensors, size_t count, size_t first_bucket_bytes, size_t bucket_bytes,
    bool find_unused, Reducer** out, char** message) {
  return guarded(message, [&] {
    std::vector<at::Tensor> params;
    for (size_t i = 0; i < count; i++) params.push_back(*tensors[i]);
    c10d::verify_params_across_processes(*group, params, std::nullopt);

    const std::vector<bool> no_sparse(count, false);
    auto buckets = std::get<0>(
        c10d::compute_bucket_assignment_by_size(params, {first_bucket_bytes, bucket_bytes}, no_sparse));
    auto inner = std::make_unique<c10d::Reducer>(
        std::move(params),
        reversed(std::move(buckets)), // gradients are ready in about the reverse order of the parameters
        *group,
        no_sparse,
        static_cast<int64_t>(bucket_bytes),
        find_unused,
        /*gradient_as_bucket_view=*/false, // zero_grad detaches gradients in place, which a view does not survive
        std::unordered_map<size_t, std::string>{},
        static_cast<int64_t>(first_bucket_bytes),
        /*skip_all_reduce_unused_params=*/false,
        /*use_python_reducer=*/false,
        std::vector<int64_t>{});
    *out = new Reducer{find_unused, std::move(inner)};
  });
}

// One backward pass with all-reduce. `reducer` may be null: then it is a plain backward pass (world size 1).
int lethe_reducer_backward(Reducer* reducer, const at::Tensor* loss, char** message) {
  return guarded(message, [&] {
    if (reducer == nullptr) return loss->backward();
    auto& inner = *reducer->inner;
    inner.prepare_for_forward();
    inner.rebuild_buckets(); // once, after the first pass: by the order in which gradients really came
    inner.prepare_for_backward(reducer->find_unused ? std::vector<at::Tensor>{*loss} : std::vector<at::Tensor>{});
    loss->backward();
    inner.check_finalized(); // a parameter without a gradient leaves its bucket unsent: an error now, not next time
  });
}

void lethe_reducer_free(Reducer* reducer) {
  char* message = nullptr;
  guarded(&message, [&] { delete reducer; }); // removes the hooks
  free(message);
}

} // extern "C"
