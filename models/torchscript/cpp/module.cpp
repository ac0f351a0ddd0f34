// Compiles and saves TorchScript modules with libtorch's C++ API, which the crate tch does not
// expose.

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <sstream>
#include <string>

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/export.h>

namespace {

using torch::jit::Module;

/// The submodule of this name; adds an empty one if there is none.
Module submodule(Module &parent, const std::string &name, const std::shared_ptr<torch::jit::CompilationUnit> &unit) {
    if (!parent.hasattr(name)) parent.register_module(name, Module("__torch__.Parameters", unit, /*shouldMangle=*/true));
    return parent.attr(name).toModule();
}

/// Adds a parameter: `a.b.weight` is the parameter `weight` of the submodule `b` of the submodule
/// `a`.
void add_parameter(Module root, const std::string &path, const at::Tensor &values,
    const std::shared_ptr<torch::jit::CompilationUnit> &unit) {
    std::istringstream names(path);
    std::string name, next;
    std::getline(names, name, '.');
    while (std::getline(names, next, '.')) {
        root = submodule(root, name, unit);
        name = next;
    }
    root.register_parameter(name, values.detach(), /*is_buffer=*/false);
}

/// A file that remembers the first error instead of throwing it: libtorch's own writer throws in its
/// destructor if a disk is full, which ends the process.
class File {
    FILE *file;

  public:
    int error = 0;

    explicit File(const char *path) : file(std::fopen(path, "wb")) {
        if (!file) error = errno;
    }
    File(const File &) = delete;
    ~File() { close(); }

    size_t write(const void *bytes, size_t size) {
        if (error == 0 && std::fwrite(bytes, 1, size, file) != size) error = errno;
        return size;
    }

    void close() {
        if (file && std::fclose(file) != 0 && error == 0) error = errno;
        file = nullptr;
    }
};

} // namespace

/// Saves a module with these methods and parameters. Returns null, or an error text that the caller
/// must free. If the file cannot be written, `system_error` is the value of errno.
extern "C" char *muse_save_module(const char *path, const char *class_name, const char *methods, const char *const *names,
    at::Tensor *const *parameters, size_t count, int *system_error) {
    try {
        const auto unit = std::make_shared<torch::jit::CompilationUnit>();
        Module module(std::string("__torch__.") + class_name, unit);
        for (size_t i = 0; i < count; i++) add_parameter(module, names[i], *parameters[i], unit);
        module.define(methods);
        module.eval();
        File file(path);
        if (file.error == 0) {
            torch::jit::ExportModule(module, [&](const void *bytes, size_t size) { return file.write(bytes, size); });
            file.close();
        }
        *system_error = file.error;
        return file.error == 0 ? nullptr : strdup("the file cannot be written");
    } catch (const std::exception &error) {
        return strdup(error.what());
    }
}
