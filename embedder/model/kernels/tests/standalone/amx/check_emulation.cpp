// Checks the emulation of AMX with results that were computed by hand, and on a processor with AMX
// also the processor itself.
//
// usage: check_emulation; prints whether the instructions ran natively, exits with 1 if a check
// failed.

#include <cstdio>

#include "emulation.h"
#include "expect.h"

namespace amx {

void check_decoding();
void check_execution();
void check_products();

namespace {
int failed = 0;
} // namespace

void expect(bool passed, const char *what) {
    if (passed) return;
    failed++;
    std::printf("failed: %s\n", what);
}

} // namespace amx

int main() {
    const bool native = amx::is_native();
    if (!native) amx::emulate();
    std::printf("AMX: %s\n", native ? "native" : "emulated");
    amx::check_decoding();
    amx::check_execution();
    amx::check_products();
    return amx::failed == 0 ? 0 : 1;
}
