// TorchScript modules with what tch leaves out: buffers as well as parameters, the memory they lie in, attributes that
// are replaced, bytes instead of files, batch normalisation switched by itself, and optimising for inference.

#include <sstream>
#include <string>

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/export.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/version.h>

#include "guard.hpp"

using lethe::guarded;
using torch::jit::Module;

namespace {

// Mirrors tch's numbers for devices.
c10::Device device_of(int number) {
  return number < 0 ? c10::Device(c10::kCPU) : c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(number));
}

// Reads where the bytes lie, without a copy.
struct View : std::streambuf {
  View(const char* data, size_t size) {
    char* begin = const_cast<char*>(data);
    setg(begin, begin, begin + size);
  }
  pos_type seekoff(off_type offset, std::ios_base::seekdir from, std::ios_base::openmode) override {
    char* base = from == std::ios_base::beg ? eback() : from == std::ios_base::cur ? gptr() : egptr();
    if (offset < eback() - base || offset > egptr() - base) return pos_type(off_type(-1));
    setg(eback(), base + offset, egptr());
    return gptr() - eback();
  }
  pos_type seekpos(pos_type position, std::ios_base::openmode mode) override {
    return seekoff(off_type(position), std::ios_base::beg, mode);
  }
};

bool other_precision(at::ScalarType type) {
  return c10::isFloatingType(type) ? type != at::kFloat : c10::isComplexType(type);
}

// Whether a frozen graph computes with f32 alone: no constant and no cast of another floating type.
bool single_precision(const torch::jit::Block& block) {
  for (const auto* node : block.nodes()) {
    for (const auto* inner : node->blocks()) {
      if (!single_precision(*inner)) return false;
    }
    for (const auto* output : node->outputs()) {
      const auto constant = torch::jit::toIValue(output);
      if (constant && constant->isTensor() && constant->toTensor().defined() &&
          other_precision(constant->toTensor().scalar_type())) {
        return false;
      }
    }
    const auto* schema = node->maybeSchema();
    for (size_t i = 0; schema && i < schema->arguments().size(); ++i) {
      const auto given = torch::jit::toIValue(node->input(i));
      if (schema->arguments()[i].name() == "dtype" && given && given->isInt() &&
          other_precision(static_cast<at::ScalarType>(given->toInt()))) {
        return false;
      }
    }
  }
  return true;
}

} // namespace

extern "C" {

const char* lethe_torch_version() { return TORCH_VERSION; }

void lethe_forget(char* message) { lethe::forget(message); }

char* lethe_script_load(const char* data, size_t size, int device, Module** out) {
  return guarded([&] {
    View view(data, size);
    std::istream stream(&view);
    *out = new Module(torch::jit::load(stream, device_of(device)));
  });
}

void lethe_script_free(Module* module) { delete module; }

int lethe_script_has_forward(const Module* module) { return module->find_method("forward").has_value(); }

// The graph executor's own optimiser is off: it profiles the first calls and then changes how it computes, so that a
// process that goes on from a checkpoint would not repeat the numbers of one that never stopped.
char* lethe_script_forward(const Module* module, const at::Tensor* input, at::Tensor** out) {
  return guarded([&] {
    torch::jit::GraphOptimizerEnabledGuard off(false);
    c10::IValue result = module->get_method("forward")({*input});
    TORCH_CHECK(result.isTensor(), "forward gave a value of type ", result.tagKind(), ", expected one tensor");
    *out = new at::Tensor(result.toTensor());
  });
}

// Parameters first, then buffers, each in the order in which the module declares them, and once under every name.
char* lethe_script_tensors(
    const Module* module, void* context,
    void (*visit)(void*, const char*, int is_parameter, at::Tensor*, const void* memory, size_t bytes)) {
  return guarded([&] {
    auto show = [&](const auto& named, int is_parameter) {
      const auto& storage = named.value.storage();
      visit(context, named.name.c_str(), is_parameter, new at::Tensor(named.value), storage.data(), storage.nbytes());
    };
    for (const auto& named : module->named_parameters()) show(named, 1);
    for (const auto& named : module->named_buffers()) show(named, 0);
  });
}

// Puts a tensor in the place of another one, by its name with dots.
char* lethe_script_assign(Module* module, const char* name, const at::Tensor* tensor) {
  return guarded([&] {
    std::istringstream path{std::string(name)};
    std::string part;
    Module at = *module;
    std::getline(path, part, '.');
    for (std::string next; std::getline(path, next, '.'); part = next) at = at.attr(part).toModule();
    at.setattr(part, *tensor);
  });
}

char* lethe_script_eval(Module* module) {
  return guarded([&] { module->eval(); });
}

// Only normalisation layers that keep statistics; dropout stays as it was. Gives the number of layers.
char* lethe_script_batch_norm(Module* module, int training, int64_t* layers) {
  return guarded([&] {
    *layers = 0;
    for (Module part : module->modules()) {
      if (part.hasattr("running_mean") && part.hasattr("training")) {
        part.setattr("training", training != 0);
        ++*layers;
      }
    }
  });
}

// Makes constants of the weights, folds, fuses, and on a cpu keeps features in oneDNN's own layout. Eval mode only.
// oneDNN's layers are written for single precision and end the process on anything else, so a module that casts stays.
char* lethe_script_optimise(Module* module) {
  return guarded([&] {
    const Module plain = torch::jit::freeze(*module);
    if (!single_precision(*plain.get_method("forward").graph()->block())) return;
    *module = torch::jit::optimize_for_inference(*module);
  });
}

char* lethe_script_save(const Module* module, void* context, void (*write)(void*, const void*, size_t)) {
  return guarded([&] {
    torch::jit::ExportModule(*module, [&](const void* data, size_t size) {
      write(context, data, size);
      return size;
    });
  });
}

} // extern "C"
