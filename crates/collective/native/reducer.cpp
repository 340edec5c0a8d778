// The gradient reducer of DistributedDataParallel (buckets, hooks on the gradient accumulators, overlapped all-reduce),
// with sums in f64.
#include "guard.hpp"

#include <torch/csrc/distributed/c10d/reducer.hpp>

using lethe::guarded;
using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

namespace {

// The gradients of the parts of a batch that came before the last one, summed.
class Parts {
 public:
  explicit Parts(std::vector<at::Tensor> params) : params_(std::move(params)), sums_(params_.size()) {
    for (size_t i = 0; i < params_.size(); i++) places_[params_[i].unsafeGetTensorImpl()] = i;
  }

  // Forgets the gradients and what was kept.
  void clear() {
    for (auto& param : params_) param.mutable_grad().reset();
    for (auto& sum : sums_) sum.reset();
  }

  // Takes the parameters' gradients away from them.
  void keep() {
    for (size_t i = 0; i < params_.size(); i++) {
      auto& grad = params_[i].mutable_grad();
      if (!grad.defined()) continue;
      if (sums_[i].defined()) {
        sums_[i].add_(grad);
      } else {
        sums_[i] = grad.to(at::kDouble);
      }
      grad.reset();
    }
  }

  // Gives them back, added to the last part's.
  void give() {
    for (size_t i = 0; i < params_.size(); i++) {
      auto& grad = params_[i].mutable_grad();
      if (!sums_[i].defined()) continue;
      if (grad.defined()) sums_[i].add_(grad);
      grad = sums_[i].to(params_[i].scalar_type());
    }
  }

  const at::Tensor& of(const at::Tensor& param) const { return sums_[places_.at(param.unsafeGetTensorImpl())]; }

 private:
  std::vector<at::Tensor> params_;
  std::vector<at::Tensor> sums_;
  std::unordered_map<const c10::TensorImpl*, size_t> places_;
};

// Sends a bucket: its gradients, which are the last part's, and what the parts before gave.
class SumHook final : public c10d::CommHookInterface {
 public:
  SumHook(Group group, std::shared_ptr<const Parts> parts) : group_(std::move(group)), parts_(std::move(parts)) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    const auto& buffer = bucket.getBuffer();
    const auto kind = buffer.scalar_type();
    const auto params = bucket.getParameters();
    const auto gradients = bucket.getGradients();
    std::vector<at::Tensor> sums{buffer.to(at::kDouble)};
    for (size_t i = 0; i < params.size(); i++) {
      const auto& part = parts_->of(params[i]);
      if (!part.defined()) continue;
      // The reducer lays a gradient out in the bucket as its parameter lies in memory, if that is without gaps.
      const auto& like = params[i].is_non_overlapping_and_dense() ? params[i] : gradients[i];
      const auto offset = gradients[i].storage_offset() - buffer.storage_offset();
      sums[0].as_strided(like.sizes(), like.strides(), offset).add_(part);
    }
    return group_->allreduce(sums)->getFuture()->then(
        [kind](c10::ivalue::Future& done) -> c10::IValue { return done.value().toTensorVector().at(0).to(kind); },
        c10::TensorType::get());
  }

  at::Tensor parseHookResult(const c10::IValue& result) override { return result.toTensor(); }

 private:
  Group group_;
  std::shared_ptr<const Parts> parts_;
};

struct Reducer {
  bool begun = false; // whether parts of this step were kept
  std::shared_ptr<Parts> parts;
  std::unique_ptr<c10d::Reducer> inner; // null in a group of one

  void begin() {
    if (!begun) parts->clear();
    begun = true;
  }
};

template <typename T>
std::vector<T> reversed(std::vector<T> list) {
  std::reverse(list.begin(), list.end());
  return list;
}

} // namespace

extern "C" {

// `group` is null in a group of one.
int lethe_reducer_new(
    const Group* group, at::Tensor* const* tensors, size_t count, size_t first_bucket_bytes, size_t bucket_bytes,
    Reducer** out, char** message) {
  return guarded(message, [&] {
    std::vector<at::Tensor> params;
    for (size_t i = 0; i < count; i++) params.push_back(*tensors[i]);
    auto reducer = std::make_unique<Reducer>();
    reducer->parts = std::make_shared<Parts>(params);
    if (group != nullptr) {
      c10d::verify_params_across_processes(*group, params, std::nullopt);
      const std::vector<bool> no_sparse(count, false);
      auto buckets = std::get<0>(
          c10d::compute_bucket_assignment_by_size(params, {first_bucket_bytes, bucket_bytes}, no_sparse));
      reducer->inner = std::make_unique<c10d::Reducer>(
          std::move(params),
          reversed(std::move(buckets)), // gradients are ready in about the reverse order of the parameters
          *group,
          no_sparse,
          static_cast<int64_t>(bucket_bytes),
          /*find_unused_parameters=*/false,
          /*gradient_as_bucket_view=*/false, // a gradient that is reset does not survive as a view
          std::unordered_map<size_t, std::string>{},
          static_cast<int64_t>(first_bucket_bytes),
          /*skip_all_reduce_unused_params=*/false,
          /*use_python_reducer=*/false,
          std::vector<int64_t>{});
      reducer->inner->register_comm_hook(std::make_unique<SumHook>(*group, reducer->parts));
    }
    *out = reducer.release();
  });
}

// The backward pass of a part that is not the last one. Nothing is sent: the hooks act only between
// prepare_for_backward and the end of a pass.
int lethe_reducer_accumulate(Reducer* reducer, const at::Tensor* loss, char** message) {
  return guarded(message, [&] {
    reducer->begin();
    loss->backward();
    reducer->parts->keep();
  });
}

// The backward pass of the last part, with all-reduce.
int lethe_reducer_finish(Reducer* reducer, const at::Tensor* loss, char** message) {
  return guarded(message, [&] {
    reducer->begin();
    reducer->begun = false;
    if (reducer->inner == nullptr) {
      loss->backward();
      return reducer->parts->give();
    }
    auto& inner = *reducer->inner;
    inner.prepare_for_forward();
    inner.rebuild_buckets(); // once, after the first pass: by the order in which gradients really came
    inner.prepare_for_backward({});
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
