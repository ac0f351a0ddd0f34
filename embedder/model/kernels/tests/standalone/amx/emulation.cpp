#include "emulation.h"

#include <cstdio>
#include <cstdlib>
#include <optional>

#include <cpuid.h>
#include <csignal>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "instruction.h"
#include "tiles.h"

namespace amx {

namespace {

thread_local Tiles tiles;

bool execute(const Instruction &instruction) {
    char *const address = reinterpret_cast<char *>(instruction.address);
    auto multiply_bytes = [&](bool left_signed, bool right_signed) {
        return tiles.multiply_bytes(instruction.tile, instruction.left, left_signed, instruction.right, right_signed);
    };
    switch (instruction.operation) {
    case Operation::LOAD_CONFIG: return tiles.load_config(address);
    case Operation::STORE_CONFIG: return tiles.store_config(address);
    case Operation::RELEASE: return tiles.release();
    case Operation::ZERO: return tiles.zero(instruction.tile);
    case Operation::LOAD: return tiles.load(instruction.tile, address, instruction.stride);
    case Operation::STORE: return tiles.store(instruction.tile, address, instruction.stride);
    case Operation::MULTIPLY_SIGNED_SIGNED: return multiply_bytes(true, true);
    case Operation::MULTIPLY_SIGNED_UNSIGNED: return multiply_bytes(true, false);
    case Operation::MULTIPLY_UNSIGNED_SIGNED: return multiply_bytes(false, true);
    case Operation::MULTIPLY_UNSIGNED_UNSIGNED: return multiply_bytes(false, false);
    case Operation::MULTIPLY_BF16: return tiles.multiply_bf16(instruction.tile, instruction.left, instruction.right);
    }
    return false;
}

void handle(int, siginfo_t *, void *context) {
    constexpr int ORDER[GENERAL_REGISTERS] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8,
        REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    auto &saved = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
    Registers registers;
    for (int i = 0; i < GENERAL_REGISTERS; i++) registers[i] = static_cast<uint64_t>(saved[ORDER[i]]);
    const std::optional<Instruction> instruction = decode(reinterpret_cast<const uint8_t *>(saved[REG_RIP]), registers);
    if (instruction && execute(*instruction)) {
        saved[REG_RIP] += instruction->length;
        return;
    }
    // The thread executes the instruction again, now without a handler.
    std::signal(SIGILL, SIG_DFL);
}

} // namespace

bool is_native() {
    unsigned a, b, c, d;
    constexpr unsigned TILE = 1 << 24, INT8 = 1 << 25, BF16 = 1 << 22, ALL = TILE | INT8 | BF16;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & ALL) != ALL) return false;
    // ARCH_REQ_XCOMP_PERM, which the headers of Linux before 5.16 lack.
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) != 0) {
        std::perror("this processor has AMX, but Linux denies its use");
        std::exit(1);
    }
    return true;
}

void emulate() {
    struct sigaction action{};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, nullptr);
}

} // namespace amx
