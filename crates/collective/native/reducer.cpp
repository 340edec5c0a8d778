// The gradient reducer of DistributedDataParallel (buckets, hooks on the gradient accumulators, overlapped all-reduce),
// with exact sums in f64.
#include <cmath>

#include "guard.hpp"

#include <ATen/Parallel.h>

#include <torch/csrc/distributed/c10d/reducer.hpp>

using lethe::guarded;
using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

namespace {

// Adds a gradient to a sum, rounded to multiples of a step: (x + shift) - shift, where the last bit of `shift` is that step.
// Numbers on one grid add up exactly as long as their sum has no more than 53 bits above it, so their order does not matter.
// `shift` is a number, or a scalar tensor on the gradient's device.
template <typename Shift>
void add_on_grid_anywhere(at::Tensor sum, const at::Tensor& gradient, const Shift& shift) {
  sum.add_(gradient.to(at::kDouble).add_(shift).sub_(shift));
}

void add_on_grid(at::Tensor sum, const at::Tensor& gradient, double shift) {
  const bool plain = sum.device().is_cpu() && gradient.device().is_cpu() && sum.is_contiguous() && gradient.is_contiguous() &&
      gradient.scalar_type() == at::kFloat && sum.sizes() == gradient.sizes();
  if (!plain) return add_on_grid_anywhere(std::move(sum), gradient, shift);
  double* out = sum.data_ptr<double>();
  const float* in = gradient.data_ptr<float>();
  at::parallel_for(0, sum.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) out[i] += (static_cast<double>(in[i]) + shift) - shift;
  });
}

// The gradients of the parts of a batch that came before the last one, summed.
class Parts {
 public:
  explicit Parts(std::vector<at::Tensor> params)
      : params_(std::move(params)), sums_(params_.size()), shifts_(params_.size(), 0.0) {
    for (size_t i = 0; i < params_.size(); i++) places_[params_[i].unsafeGetTensorImpl()] = i;
  }

  // Sets the step of each parameter's grid, a power of two.
  void set_grid(const double* steps) {
    for (size_t i = 0; i < shifts_.size(); i++) shifts_[i] = std::ldexp(1.5, 52) * steps[i];
    on_device_ = at::Tensor();
  }

  // The same from a tensor [parameters], f64, where the gradients are: this process does not wait for its numbers.
  void set_grid(const at::Tensor& steps) { on_device_ = steps.mul(std::ldexp(1.5, 52)); }

  // Adds a gradient of the parameter at `place` to a sum, on its grid.
  void add(at::Tensor sum, const at::Tensor& gradient, size_t place) const {
    if (on_device_.defined()) {
      add_on_grid_anywhere(std::move(sum), gradient, on_device_[static_cast<int64_t>(place)]);
    } else {
      add_on_grid(std::move(sum), gradient, shifts_[place]);
    }
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
      if (!sums_[i].defined()) sums_[i] = at::zeros_like(grad, grad.options().dtype(at::kDouble));
      add(sums_[i], grad, i);
      grad.reset();
    }
  }

  // Gives them back, added to the last part's.
  void give() {
    for (size_t i = 0; i < params_.size(); i++) {
      auto& grad = params_[i].mutable_grad();
      if (!sums_[i].defined() && grad.defined()) sums_[i] = at::zeros_like(grad, grad.options().dtype(at::kDouble));
      if (!sums_[i].defined()) continue;
      if (grad.defined()) add(sums_[i], grad, i);
      grad = sums_[i].to(params_[i].scalar_type());
    }
  }

  size_t place(const at::Tensor& param) const { return places_.at(param.unsafeGetTensorImpl()); }
  const at::Tensor& sum(size_t place) const { return sums_[place]; }

 private:
  std::vector<at::Tensor> params_;
  std::vector<at::Tensor> sums_;
  std::vector<double> shifts_;
  at::Tensor on_device_; // the same numbers, where they are not known here
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
    std::vector<at::Tensor> sums{at::zeros_like(buffer, buffer.options().dtype(at::kDouble))};
    for (size_t i = 0; i < params.size(); i++) {
      const auto place = parts_->place(params[i]);
      // The reducer lays a gradient out in the bucket as its parameter lies in memory, if that is without gaps.
      const auto& like = params[i].is_non_overlapping_and_dense() ? params[i] : gradients[i];
      const auto offset = gradients[i].storage_offset() - buffer.storage_offset();
      auto sum = sums[0].as_strided(like.sizes(), like.strides(), offset);
      const auto last = buffer.as_strided(like.sizes(), like.strides(), gradients[i].storage_offset());
      parts_->add(sum, last, place);
      if (parts_->sum(place).defined()) sum.add_(parts_->sum(place));
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

// `steps`: one for each parameter, a power of two.
void lethe_reducer_set_grid(Reducer* reducer, const double* steps) { reducer->parts->set_grid(steps); }

// `steps`: f64 [parameters], powers of two, on the parameters' device.
int lethe_reducer_set_grid_on_device(Reducer* reducer, const at::Tensor* steps, char** message) {
  return guarded(message, [&] { reducer->parts->set_grid(*steps); });
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
